"""Keeps web pages of other sites away from a gateway without keys.

A browser lets any page send requests to this machine. Without a key, only where a request comes from tells them apart.
"""

from __future__ import annotations

import re

from starlette.requests import Request

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.settings import LOOPBACK, GatewaySettings

LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


def refuse_other_sites(request: Request, settings: GatewaySettings) -> None:
    """Raise ApiError (403) for a page of another site, and for a name that another site made point here."""
    own_hosts = {*LOOPBACK, settings.public_url.host if settings.public_url else None}
    if request.url.hostname not in own_hosts:
        raise ApiError(403, "Without an API key, the gateway is reached as localhost only.", "bad_request")
    origin = request.headers.get("origin")
    if origin is None or re.fullmatch(LOOPBACK_ORIGIN, origin):
        return
    if "*" not in settings.cors_origins and origin not in settings.cors_origins:
        raise ApiError(403, "Pages of other sites need an API key, or LORIKEET_GATEWAY_CORS_ORIGINS.", "bad_request")
