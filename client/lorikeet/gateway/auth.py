"""Who calls: the id of an API key, from the Authorization header or a browser's token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.browser_guard import refuse_other_sites
from lorikeet.gateway.services import Services, services_of

LOCAL = "local"  # the key id of every caller while there is no key
BROWSER_TOKEN = "browser"

_WRONG = "invalid key credentials"


def key_id_of(request: Request) -> str:
    """The id of the caller's key. Raises ApiError (401)."""
    services = services_of(request)
    if services.keys.is_empty() and services.settings.is_loopback:
        refuse_other_sites(request, services.settings)
        return LOCAL
    if token := request.query_params.get("fal_jwt_token"):
        return _of_token(services, token)
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in ("key", "bearer") or not credentials.strip():
        raise ApiError(401, _anonymous(request.url.path))
    key_id = services.keys.find(credentials.strip())
    return key_id if key_id is not None else _of_token(services, credentials.strip())


def _of_token(services: Services, token: str) -> str:
    payload = services.tokens.read(BROWSER_TOKEN, token)
    if payload is None:
        raise ApiError(401, _WRONG)
    return str(payload["key_id"])


def _anonymous(path: str) -> str:
    application = "/".join(path.strip("/").split("/")[1:3])
    return f'Cannot access application "{application}". Authentication is required to access this application.'


KeyId = Annotated[str, Depends(key_id_of)]
