"""The orientation that metadata names. Damaged metadata names none. No parser reads more than `MAX_METADATA` bytes."""

from __future__ import annotations

import re
import struct

MAX_METADATA = 1 << 20
UPRIGHT = 1

_EXIF_PREFIX = re.compile(rb"(?:Exif\0\0){0,2}")
# Some writers swap the two bytes of the version. Pillow reads their Exif too.
_BYTE_ORDERS = {b"II\x2a\0": "<", b"II\0\x2a": "<", b"MM\0\x2a": ">", b"MM\x2a\0": ">"}
_ORIENTATION = 0x0112
_FORMATS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT and LONG
_ENTRY_BYTES, _VALUE_BYTES = 12, 4
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_of(*exif_blocks: bytes, xmp: bytes) -> int:
    """The orientation that the first valid one of the Exif blocks names, else XMP, else `UPRIGHT`."""
    found = (orientation for block in exif_blocks if (orientation := _exif_orientation(block)))
    return next(found, None) or _xmp_orientation(xmp) or UPRIGHT


def _exif_orientation(exif: bytes) -> int | None:
    """The tag Orientation in the first directory of an Exif block; None if the block has no valid one."""
    prefix = _EXIF_PREFIX.match(exif)
    tiff = exif[prefix.end() if prefix else 0 :][:MAX_METADATA]
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, start)
        for place in range(start + 2, start + 2 + _ENTRY_BYTES * entries, _ENTRY_BYTES):
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, place)
            if tag == _ORIENTATION:
                return _value(tiff[place + 8 : place + _ENTRY_BYTES], order, kind, count)
    except struct.error:  # the block ends before its directory does
        return None
    return None


def _value(stored: bytes, order: str, kind: int, count: int) -> int | None:
    """The first of `count` values that are stored inside a directory's entry."""
    fmt = order + _FORMATS.get(kind, "x")
    if kind not in _FORMATS or not 1 <= count <= _VALUE_BYTES // struct.calcsize(fmt):
        return None
    (value,) = struct.unpack_from(fmt, stored)
    return value if 1 <= value <= 8 else None


def _xmp_orientation(xmp: bytes) -> int | None:
    """The first `tiff:Orientation` of an XMP text; None if it has no valid one."""
    found = _XMP.search(xmp, 0, MAX_METADATA)
    return int(found[1]) if found else None
