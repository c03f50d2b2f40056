"""How long files live: the header `X-Fal-Object-Lifecycle-Preference`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.files.stored_file import Lifecycle

HEADERS = ("x-fal-object-lifecycle-preference", "x-fal-object-lifecycle")
_DURATION, _ACL = "expiration_duration_seconds", "initial_acl"
_PRIVATE = ("hide", "forbid")
_LONGEST_SECONDS = 100 * 365 * 86400  # so that an end is a time that the database holds


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
    except (ValueError, AttributeError, RecursionError) as error:
        raise ApiError(400, f"{HEADERS[0]}: expected a JSON object", "bad_request") from error
    if seconds is not None and not (type(seconds) in (int, float) and 0 < seconds <= _LONGEST_SECONDS):
        problem = f"{_DURATION} must be a positive number of at most {_LONGEST_SECONDS}"
        raise ApiError(400, f"{HEADERS[0]}: {problem}", "bad_request")
    return Lifecycle(seconds, is_private)
