"""Errors of a Triton request in fal's shapes."""

from __future__ import annotations

from lorikeet.gateway.api_error import ApiError, field_error
from lorikeet.gateway.locations import leading_location
from lorikeet.protocol.errors import Cancelled, DeadlineExceeded, InvalidRequest, LorikeetError, NotFound, Unavailable


def api_error(error: LorikeetError) -> ApiError:
    """The answer for an error that no retry mends."""
    match error:
        case InvalidRequest():
            location, message = leading_location(error.message)
            return field_error(location, message) if location else ApiError(422, error.message)
        case Unavailable() | NotFound() | Cancelled():
            return ApiError(503, error.message, "runner_connection_error")
        case DeadlineExceeded():
            return ApiError(504, error.message, "generation_timeout")
    return ApiError(500, error.message, "runner_server_error")


def is_retryable(error: LorikeetError) -> bool:
    """Whether the request itself had no part in the error: the server was full, restarted, or lost the request."""
    # CANCELLED that the gateway did not ask for: a restart of the gateway let the lease end, or the server stopped.
    return isinstance(error, (Unavailable, NotFound, Cancelled))
