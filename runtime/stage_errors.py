"""The errors that a stage answers with. Each knows its Triton status code; nothing else leaks."""

from __future__ import annotations

from typing import ClassVar


class StageError(Exception):
    """An answer to the client: `str(error)` is shown as it is, so it names the field and holds no stack trace."""

    code: ClassVar[str] = "INTERNAL"


class InvalidArgument(StageError):
    """The request is wrong. The message starts with the field: `loras[1].path: ...`."""

    code = "INVALID_ARG"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)


class NotFound(StageError):
    """No live job has that id and token."""

    code = "NOT_FOUND"


class Unavailable(StageError):
    """The server is full or stopping: the same request may succeed later."""

    code = "UNAVAILABLE"


class Cancelled(StageError):
    """The client asked for the job to stop."""

    code = "CANCELLED"

    def __init__(self, message: str = "the request was cancelled") -> None:
        super().__init__(message)


class DeadlineExceeded(StageError):
    """The time that the client gave the request has passed. Triton has no code of its own for it, and UNAVAILABLE
    would have clients try again: the message says which."""

    code = "CANCELLED"

    def __init__(self) -> None:
        super().__init__("DEADLINE_EXCEEDED: the request's time is over")


class Internal(StageError):
    """Something failed that the request is not to blame for; the log holds the trace."""
