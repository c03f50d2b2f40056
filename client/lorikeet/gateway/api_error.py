"""Errors in the shapes of fal: `{"detail": ...}`, with `error_type` where the request itself failed."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from lorikeet.gateway.storage_full import is_storage_full

ERROR_TYPE = "X-Fal-Error-Type"
TIMEOUT_TYPE = "X-Fal-Request-Timeout-Type"
RETRYABLE = "X-Fal-Retryable"

CLIENT_CANCELLED = "client_cancelled"
REQUEST_TIMEOUT = "request_timeout"


class ApiError(Exception):
    """An answer other than success. `detail`: text, or the list of a validation's errors."""

    def __init__(
        self, status_code: int, detail: Any, error_type: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status_code} {detail}")
        self.status_code, self.detail, self.error_type = status_code, detail, error_type
        self.headers = dict(headers or {})
        if error_type is not None:
            self.headers[ERROR_TYPE] = error_type

    @property
    def body(self) -> dict[str, Any]:
        return {"detail": self.detail} | ({"error_type": self.error_type} if self.error_type else {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status_code, self.headers)


class FieldErrors(ApiError):
    """422 for invalid input. `detail`: `[{"loc": ["body", "prompt"], "msg": ..., "type": ...}]`."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        super().__init__(422, detail)


def field_error(location: list[str | int], message: str, kind: str = "value_error") -> FieldErrors:
    """422 for one field; `location` without the leading "body"."""
    return FieldErrors([{"loc": ["body", *location], "msg": message, "type": kind}])


def cancelled() -> ApiError:
    # Code and text are those of fal's server SDK.
    return ApiError(499, "Request cancelled by the client.", CLIENT_CANCELLED)


def start_timeout() -> ApiError:
    """The request did not start in the time that its client gave."""
    return ApiError(504, "Request timed out", REQUEST_TIMEOUT, {TIMEOUT_TYPE: "user"})


def internal_error(error: Exception | None = None) -> ApiError:
    """The answer for an error of the gateway itself. Its text may hold paths and addresses: only the log has it."""
    if error is not None and is_storage_full(error):
        return ApiError(507, "The storage is full. Tell the operator of this gateway.", "internal_error")
    return ApiError(500, "Internal Server Error", "internal_error")
