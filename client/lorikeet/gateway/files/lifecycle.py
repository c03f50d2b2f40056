"""How long files live: the header `X-Fal-Object-Lifecycle-Preference`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.files.store import Lifecycle

HEADERS = ("x-fal-object-lifecycle-preference", "x-fal-object-lifecycle")
_DURATION, _ACL = "expiration_duration_seconds", "initial_acl"
_PRIVATE = ("hide", "forbid")


def read_lifecycle(headers: Mapping[str, str], default_seconds: float) -> Lifecycle:
    """The lifecycle that a request asks for.

    The header is JSON: `{"expiration_duration_seconds": 3600, "initial_acl": {"default": "hide"}}`. One without a
    duration means for ever, as the clients' `never` does. Raises ApiError (400).
    """
    text = next((headers[name] for name in HEADERS if name in headers), None)
    if text is None:
        return Lifecycle(default_seconds)
    try:
        preference = json.loads(text)
        seconds = preference.get(_DURATION)
        acl = preference.get(_ACL) or {}
        is_private = acl.get("default") in _PRIVATE
    except (ValueError, AttributeError) as error:
        raise ApiError(400, f"{HEADERS[0]}: expected a JSON object", "bad_request") from error
    if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
        raise ApiError(400, f"{HEADERS[0]}: {_DURATION} must be a positive number", "bad_request")
    return Lifecycle(seconds, is_private)
