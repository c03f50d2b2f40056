"""Triton's error names, and the exceptions that the client raises for them."""

# Triton's own names (TRITONSERVER_Error_Code), which a stage answers with.
INVALID_ARG = "INVALID_ARG"
NOT_FOUND = "NOT_FOUND"
UNAVAILABLE = "UNAVAILABLE"
UNSUPPORTED = "UNSUPPORTED"
CANCELLED = "CANCELLED"
INTERNAL = "INTERNAL"

# Triton has no such name: a stage answers CANCELLED, with a message that begins with the prefix.
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
DEADLINE_PREFIX = f"{DEADLINE_EXCEEDED}: "
# Over HTTP, Triton before 2.57 answers 400 to CANCELLED too: this prefix of the message distinguishes it.
CANCELLED_PREFIX = f"{CANCELLED}: "
_PREFIXES = {DEADLINE_PREFIX: DEADLINE_EXCEEDED, CANCELLED_PREFIX: CANCELLED}

_GRPC_STATUS_PREFIX = "StatusCode."
# gRPC status names and HTTP codes that differ from the names above.
_STATUS_NAMES = {
    "INVALID_ARGUMENT": INVALID_ARG,
    "UNIMPLEMENTED": UNSUPPORTED,
    "400": INVALID_ARG,
    "404": NOT_FOUND,
    "499": CANCELLED,
    "500": INTERNAL,
    "501": UNSUPPORTED,
    "502": UNAVAILABLE,
    "503": UNAVAILABLE,
    "504": DEADLINE_EXCEEDED,
}


class LorikeetError(Exception):
    """A request that did not succeed. `status` is one of the names above, e.g. INTERNAL."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class InvalidRequest(LorikeetError):
    """The request is invalid (INVALID_ARG). The message names the field."""


class NotFound(LorikeetError):
    """The server has no such model, or no job with this request id and job token (NOT_FOUND)."""


class Unavailable(LorikeetError):
    """The server cannot be reached, is stopping, or is full (UNAVAILABLE)."""


class Cancelled(LorikeetError):
    """The request was cancelled (CANCELLED)."""


class DeadlineExceeded(LorikeetError):
    """The timeout has passed (DEADLINE_EXCEEDED)."""


_ERRORS: dict[str, type[LorikeetError]] = {
    INVALID_ARG: InvalidRequest,
    NOT_FOUND: NotFound,
    UNAVAILABLE: Unavailable,
    CANCELLED: Cancelled,
    DEADLINE_EXCEEDED: DeadlineExceeded,
}


def make_error(message: str, status: str) -> LorikeetError:
    """The exception for a Triton error name, a gRPC status (`StatusCode.X` or `X`) or an HTTP code ("404")."""
    name = status.removeprefix(_GRPC_STATUS_PREFIX)
    name = _STATUS_NAMES.get(name, name)
    for prefix, named in _PREFIXES.items():
        if message.startswith(prefix):
            name, message = named, message.removeprefix(prefix)
    return _ERRORS.get(name, LorikeetError)(message, name)
