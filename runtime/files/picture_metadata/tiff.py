"""TIFF: makes the tags of the first directory unreadable that describe no pixels.

A tag is a reference to any part of the file. Many references to one long part make Pillow copy it once for each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from runtime.files.picture_metadata.orientation import UPRIGHT
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StripError, StrippedPicture

MAX_ENTRIES = 4096
MAX_TAG_BYTES = 1 << 20  # the strips' offsets are the longest: four bytes for each row of pixels

_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NO_TYPE = b"\0\0"
_PIXEL_TAGS = frozenset(
    (
        *range(254, 260), 262, *range(263, 267), 273, 274, *range(277, 282), 284, 292, 293, 317, 320, *range(322, 326),
        332, 334, *range(338, 342), 347, *range(512, 522), *range(529, 533), 50674,
    )
)  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """The sizes of TIFF (32-bit offsets) or BigTIFF (64-bit)."""

    order: str
    offset: str
    count: str
    first: int  # the place of the first directory's offset

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, number of values, the values or their offset."""
        return struct.Struct(f"{self.order}HH{self.offset}{self.offset}")


# Pillow also reads files whose version has its two bytes swapped.
_LAYOUTS = {
    b"II\x2a\0": _Layout("<", "I", "H", 4),
    b"II\0\x2a": _Layout("<", "I", "H", 4),
    b"MM\0\x2a": _Layout(">", "I", "H", 4),
    b"MM\x2a\0": _Layout(">", "I", "H", 4),
    b"II\x2b\0": _Layout("<", "Q", "Q", 8),
    b"MM\0\x2b": _Layout(">", "Q", "Q", 8),
}
MAGIC = tuple(_LAYOUTS)


def strip(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """A TIFF with the tags of its pixels. Pillow applies the tag Orientation. Raises StripError."""
    layout = _LAYOUTS[data[:4]]
    kept, seen = bytearray(data), set[int]()
    try:
        (directory,) = struct.unpack_from(layout.order + layout.offset, data, layout.first)
        (entries,) = struct.unpack_from(layout.order + layout.count, data, directory)
        if entries > MAX_ENTRIES:
            raise StripError(f"a TIFF with {entries} tags: expected at most {MAX_ENTRIES}; save the picture again")
        first = directory + struct.calcsize(layout.order + layout.count)
        for place in range(first, first + entries * layout.entry.size, layout.entry.size):
            tag, kind, values, _ = layout.entry.unpack_from(data, place)
            is_short = values * _BYTES_OF_TYPE.get(kind, MAX_TAG_BYTES) <= MAX_TAG_BYTES
            if tag not in _PIXEL_TAGS or tag in seen or not is_short:
                kept[place + 2 : place + 4] = _NO_TYPE
            seen.add(tag)
    except struct.error as error:
        raise StripError("the picture is damaged (the TIFF's directory is cut)") from error
    return StrippedPicture(bytes(kept), UPRIGHT)
