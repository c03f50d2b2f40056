"""JPEG: keeps the segments that decoding needs, drops all others, and reads the orientation.

Pillow needs quadratic time for many Exif segments. The scan of a progressive picture costs one pass over all pixels,
however few bytes it has, so the scans are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runtime.files.picture_metadata.orientation import orientation_of
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StripError, StrippedPicture, checked_parts

MAGIC = b"\xff\xd8\xff"
MAX_SCANS = 100  # encoders write at most about 20
MAX_TABLES = 1000  # segments other than scans and metadata; an encoder writes at most 8 before a scan

_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_EOI, _SOS = 0xD9, 0xDA
_METADATA = frozenset((*range(0xE0, 0x100),))  # APPn, the unused JPGn, and comments
# In coded data 0xFF is followed by 0 or by a restart marker (0xD0 to 0xD7). Before a marker it may be repeated.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
# Runs of metadata segments that are too short for a header of 12 bytes (JFIF, Adobe) or an orientation of 28 bytes.
_SHORT_HEADER, _SHORT_OTHER = (
    rb"\x00(?:[\x00-\x02]|" + b"|".join(rb"\x%02x.{%d}" % (2 + length, length) for length in range(1, limit)) + b")"
    for limit in (12, 28)
)
_SHORT_METADATA = re.compile(
    rb"(?:\xff(?:[\xe1-\xed\xef-\xfe]" + _SHORT_OTHER + rb"|[\xe0\xee]" + _SHORT_HEADER + rb")){1,4096}", re.DOTALL
)
_HEADERS = {_APP0: b"JFIF\0", _APP14: b"Adobe"}  # libjpeg derives the colour space from them
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def strip(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """A JPEG up to its end marker. Raises StripError, and what `check_cancelled` raises."""
    kept, scans, tables = bytearray(data[:2]), 0, 0
    metadata: dict[bytes, bytes] = {}  # prefix -> content of the first segment that has it
    for marker, start, end in _segments(data, check_cancelled):
        if marker in _METADATA:
            prefix = _prefix(data, marker, start + 4, end)
            if prefix is not None and prefix not in metadata:
                metadata[prefix] = data[start + 4 : end]
                if marker in _HEADERS:
                    kept += data[start:end]
            continue
        kept += memoryview(data)[start:end]
        scans += marker == _SOS
        tables += marker != _SOS
        if scans > MAX_SCANS or tables > MAX_TABLES:
            raise StripError(
                f"a JPEG of more than {MAX_SCANS} scans or {MAX_TABLES} tables: save the picture again, not progressive"
            )
    orientation = orientation_of(metadata.get(_EXIF, b""), xmp=metadata.get(_XMP, b""))
    return StrippedPicture(bytes(kept), orientation)


def _prefix(data: bytes, marker: int, start: int, end: int) -> bytes | None:
    """The known prefix of a metadata segment's content; None: the segment is dropped unread."""
    known = (_EXIF, _XMP) if marker == _APP1 else (_HEADERS[marker],) if marker in _HEADERS else ()
    return next((prefix for prefix in known if data.startswith(prefix, start, end)), None)


def _segments(data: bytes, check_cancelled: CheckCancelled) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment to the end marker. A scan's segment includes its coded data.

    Bytes between two segments are skipped, as libjpeg skips them.
    """
    place = len(MAGIC) - 1
    for _ in checked_parts(check_cancelled):
        if short := _SHORT_METADATA.match(data, place):
            place = short.end()
            continue
        found = _MARKER.search(data, place)
        if found is None:
            return
        start, marker = found.start(), data[found.end() - 1]
        if marker == _EOI:
            yield marker, start, found.end()
            return
        end = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        if marker == _SOS:
            following = _MARKER.search(data, end)
            end = following.start() if following else len(data)
        yield marker, start, min(end, len(data))
        place = end
