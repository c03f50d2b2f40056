"""The errors that a stage answers a request with. `code` is Triton's name of the error."""

from __future__ import annotations

from typing import ClassVar

from lorikeet.protocol.errors import (
    CANCELLED,
    CANCELLED_PREFIX,
    DEADLINE_PREFIX,
    INTERNAL,
    INVALID_ARG,
    NOT_FOUND,
    UNAVAILABLE,
)


class StageError(Exception):
    """An error for the client, who sees `str(error)`: it names the field and holds no stack trace."""

    code: ClassVar[str] = INTERNAL


class InvalidArgument(StageError):
    """The request is invalid. The message begins with the field: `loras[1].path: ...`."""

    code = INVALID_ARG

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)


class NotFound(StageError):
    """No job has this request id and token."""

    code = NOT_FOUND


class Unavailable(StageError):
    """The server is full or stopping; the request may succeed later."""

    code = UNAVAILABLE


class Cancelled(StageError):
    """The client cancelled the job."""

    code = CANCELLED

    def __init__(self, message: str = "the request was cancelled") -> None:
        super().__init__(f"{CANCELLED_PREFIX}{message}")


class DeadlineExceeded(StageError):
    """The job's timeout has passed. Triton has no code for it, and UNAVAILABLE would make clients retry: the prefix of
    the message distinguishes it from a cancel."""

    code = CANCELLED

    def __init__(self) -> None:
        super().__init__(f"{DEADLINE_PREFIX}the request's job_timeout_ms has passed")


class Internal(StageError):
    """The server failed, not the request. The log holds the stack trace."""
