"""WebP: keeps the chunks that contain pixels, drops all others, and reads the orientation."""

from __future__ import annotations

import struct

from runtime.files.picture_metadata.orientation import orientation_of
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StrippedPicture, checked_parts

_HEAD = struct.Struct("<4sI")  # kind, length of the content
_FILE_HEAD_BYTES = 12
_PIXEL_KINDS = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"))
_EXIF, _XMP = b"EXIF", b"XMP "
_FLAGS = _FILE_HEAD_BYTES + _HEAD.size  # the place of VP8X's flags: VP8X is the first chunk
_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC, Exif, XMP


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def strip(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """A WebP without metadata. Raises what `check_cancelled` raises."""
    kept, metadata = bytearray(data[:_FILE_HEAD_BYTES]), dict[bytes, bytes]()
    place = _FILE_HEAD_BYTES
    for _ in checked_parts(check_cancelled):
        if place + _HEAD.size > len(data):
            break
        kind, length = _HEAD.unpack_from(data, place)
        start = place + _HEAD.size
        end = start + length
        if kind in _PIXEL_KINDS:
            kept += memoryview(data)[place : end + length % 2]
        elif kind in (_EXIF, _XMP):
            metadata.setdefault(kind, data[start:end])
        place = end + length % 2
    struct.pack_into("<I", kept, 4, len(kept) - 8)
    if kept[_FILE_HEAD_BYTES : _FILE_HEAD_BYTES + 4] == b"VP8X" and len(kept) > _FLAGS:
        kept[_FLAGS] &= ~_METADATA_FLAGS
    return StrippedPicture(bytes(kept), orientation_of(metadata.get(_EXIF, b""), xmp=metadata.get(_XMP, b"")))
