"""GIF: keeps the first frame and drops all extensions. Pillow needs quadratic time for long comments."""

from __future__ import annotations

import re

from runtime.files.picture_metadata.orientation import UPRIGHT
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StripError, StrippedPicture, checked_parts

MAGIC = (b"GIF87a", b"GIF89a")

_HEADER_BYTES, _FRAME_BYTES = 13, 10
_HAS_COLORS, _COLORS = 0x80, 0x07  # flags: a table of 2 ** (n + 1) colours follows
_CONTROL = 0xF9  # an extension: the frame's transparent colour
_BLOCK = re.compile(b"[!,;]")  # an extension, a frame, the end
_END = b";"


def strip(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """A GIF of one frame. Raises StripError, and what `check_cancelled` raises."""
    place = _HEADER_BYTES + _table_bytes(data, _HEADER_BYTES - 3)
    header, control = data[:place], b""
    for _ in checked_parts(check_cancelled):
        found = _BLOCK.search(data, place)
        if found is None or found[0] == _END:
            break
        start = found.start()
        if found[0] == b",":
            coded = start + _FRAME_BYTES + _table_bytes(data, start + _FRAME_BYTES - 1) + 1
            frame = data[start : _end_of_blocks(data, coded, check_cancelled)]
            return StrippedPicture(b"".join((header, control, frame, _END)), UPRIGHT)
        place = _end_of_blocks(data, start + 2, check_cancelled)
        if data[start + 1 : start + 2] == bytes([_CONTROL]):
            control = data[start:place]
    raise StripError("the picture is damaged (the GIF has no frame)")


def _table_bytes(data: bytes, flags: int) -> int:
    """Bytes of the table of colours that follows a header; `flags` is the place of the header's flags."""
    found = data[flags] if flags < len(data) else 0
    return 3 << (found & _COLORS) + 1 if found & _HAS_COLORS else 0


def _end_of_blocks(data: bytes, place: int, check_cancelled: CheckCancelled) -> int:
    """The place behind the empty block that ends a sequence of blocks; each begins with its length."""
    end = len(data)
    for _ in checked_parts(check_cancelled):
        if place >= end or not (length := data[place]):
            break
        place += length + 1
    return place + 1
