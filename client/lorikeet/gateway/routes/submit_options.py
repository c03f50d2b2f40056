"""The options of a submit or a run, from the headers and the query."""

from __future__ import annotations

import math

from starlette.requests import Request

from lorikeet.gateway.api_error import ApiError
from lorikeet.gateway.files.lifecycle import read_lifecycle
from lorikeet.gateway.queue.submission import LOW, NORMAL, Options
from lorikeet.gateway.services import services_of
from lorikeet.gateway.webhooks.deliver import WebhookRefused

_SHORTEST_TIMEOUT = 0.1
_MAX_KEY = 255


def read_options(request: Request) -> Options:
    """The options. Unknown values of the priority are ignored, as fal does. Raises ApiError (400)."""
    services, headers = services_of(request), request.headers
    priority = headers.get("x-fal-queue-priority", NORMAL).lower()
    return Options(
        webhook=_webhook(request),
        priority=LOW if priority == LOW else NORMAL,
        start_timeout=read_start_timeout(request),
        may_retry=headers.get("x-fal-no-retry", "").lower() not in ("1", "true", "yes"),
        keeps_payloads=headers.get("x-fal-store-io") != "0",
        lifecycle=read_lifecycle(headers, services.settings.keep_files_s),
    )


def read_start_timeout(request: Request) -> float | None:
    """Seconds until the request must have started; the newer header wins."""
    for name in ("x-fal-request-start-timeout", "x-fal-request-timeout"):
        if (text := request.headers.get(name)) is not None:
            seconds = _number(text)
            if seconds is None or seconds <= _SHORTEST_TIMEOUT:
                raise ApiError(400, f"{name}: expected more than {_SHORTEST_TIMEOUT} seconds", "bad_request")
            return seconds
    return None


def read_max_queue_length(request: Request) -> int | None:
    """`fal_max_queue_length`: waiting requests above which the submit is refused."""
    text = request.query_params.get("fal_max_queue_length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiError(400, "fal_max_queue_length: expected a whole number", "bad_request")
    return int(text)


def read_idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _MAX_KEY:
        raise ApiError(400, f"Idempotency-Key: expected 1 to {_MAX_KEY} characters", "bad_request")
    return key


def _webhook(request: Request) -> str | None:
    url = request.query_params.get("fal_webhook")
    if url is None:
        return None
    try:
        services_of(request).webhooks.check_url(url)
    except WebhookRefused as error:
        raise ApiError(400, f"fal_webhook: {error}", "bad_request") from error
    return url


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
