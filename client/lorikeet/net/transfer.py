"""The bounds of one download, its progress, and its errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

_SLOWEST = 1000  # bytes a second; a slower download would occupy a worker thread for too long


class FetchError(Exception):
    """The URL was refused or could not be read. The message gives the reason and may be sent to the client."""


class UnreachableError(FetchError):
    """The server does not answer, or reports an error of its own. An earlier download may still be valid."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one download. `bytes`: largest body. `seconds`: total time. `check_cancelled` is called often; it
    raises when the job was cancelled. After `patience` seconds the mean rate must be at least 1000 bytes a second."""

    bytes: int
    seconds: float
    check_cancelled: Callable[[], None] = field(default=lambda: None)
    patience: float = 30.0


@dataclass
class Transfer:
    """The progress of one download: `begun` in seconds of time.monotonic(), `received` in bytes."""

    limits: Limits
    begun: float
    received: int = 0

    def left(self, seconds: float | None = None) -> float:
        """The seconds left, at most `seconds`. Raises FetchError if none are left, or what `check_cancelled` raises."""
        self.limits.check_cancelled()
        spent = time.monotonic() - self.begun
        left = self.limits.seconds - spent
        if left <= 0:
            raise FetchError(f"not complete after {self.limits.seconds:g} seconds")
        if spent > self.limits.patience and self.received < _SLOWEST * spent:
            raise FetchError(f"the download is too slow: {self.received} bytes in {spent:.0f} seconds")
        return left if seconds is None else min(left, seconds)
