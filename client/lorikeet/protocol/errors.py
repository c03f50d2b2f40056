"""What the client raises, and how a Triton status becomes it."""

GRPC_STATUS_PREFIX = "StatusCode."
_DEADLINE = "DEADLINE_EXCEEDED: "

# gRPC status names and HTTP codes to Triton's own error names.
_STATUS_NAMES = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "UNIMPLEMENTED": "UNSUPPORTED",
    "400": "INVALID_ARG",
    "404": "NOT_FOUND",
    "499": "CANCELLED",
    "500": "INTERNAL",
    "501": "UNSUPPORTED",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "DEADLINE_EXCEEDED",
}


class LorikeetError(Exception):
    """A request that did not succeed. `status` is Triton's name of the error, e.g. INTERNAL."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class InvalidRequest(LorikeetError):
    """The request is wrong (INVALID_ARG); the message names the field."""


class NotFound(LorikeetError):
    """The server does not know the model, or the pair of request id and job token (NOT_FOUND)."""


class Unavailable(LorikeetError):
    """The server cannot be reached, went away, or admits no more work (UNAVAILABLE)."""


class Cancelled(LorikeetError):
    """The request was cancelled (CANCELLED)."""


class DeadlineExceeded(LorikeetError):
    """The time-out passed (DEADLINE_EXCEEDED)."""


_ERRORS: dict[str, type[LorikeetError]] = {
    "INVALID_ARG": InvalidRequest,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Cancelled,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}


def make_error(message: str, status: str) -> LorikeetError:
    """The error for a Triton error name, a gRPC status (`StatusCode.X` or `X`) or an HTTP code ("404")."""
    name = status.removeprefix(GRPC_STATUS_PREFIX)
    name = _STATUS_NAMES.get(name, name)
    if message.startswith(_DEADLINE):  # Triton has no code of its own for it
        name, message = "DEADLINE_EXCEEDED", message.removeprefix(_DEADLINE)
    return _ERRORS.get(name, LorikeetError)(message, name)
