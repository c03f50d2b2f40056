"""What remains of a picture without its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

CheckCancelled = Callable[[], None]

CHECK_EVERY = 1 << 16  # parts of a file between two calls of `check_cancelled`; about 30 ms


class StripError(ValueError):
    """The picture cannot be decoded, or decoding it takes too long; the message is fit for the client."""


@dataclass(frozen=True)
class StrippedPicture:
    """An encoded picture without metadata, and the orientation that its metadata named: 1 to 8 as in Exif."""

    data: bytes
    orientation: int


def checked_parts(check_cancelled: CheckCancelled) -> Iterator[None]:
    """Iterates without end: one time for each part of a file. Calls `check_cancelled` after every `CHECK_EVERY` parts.

    Raises what `check_cancelled` raises.
    """
    while True:
        yield from repeat(None, CHECK_EVERY)
        check_cancelled()
