"""Encoded pictures, with metadata as real files have it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

PLENTY = 1 << 20
WIDTH, HEIGHT = 80, 64
_RAMP = np.linspace(0, 255, WIDTH, dtype=np.uint8)
PICTURE = np.ascontiguousarray(
    np.stack(
        [np.tile(_RAMP, (HEIGHT, 1)), np.tile(_RAMP[:HEIGHT, None], (1, WIDTH)), np.full((HEIGHT, WIDTH), 90)], axis=-1
    ).astype(np.uint8)
)
TRANSPOSE = {  # by Exif's orientation: how a camera that is held so stores an upright picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_PNG_HEADER_BYTES, _PNG_END_BYTES = 33, 12


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def stored(orientation: int) -> Image.Image:
    """`PICTURE` as a camera stores it."""
    upright, method = Image.fromarray(PICTURE), TRANSPOSE[orientation]
    return upright if method is None else upright.transpose(method)


def opened(data: bytes) -> Any:
    """The pixels that Pillow gives, RGB [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1, entries: int = 1) -> bytes:
    """A TIFF structure whose one tag is Orientation, of TIFF's type `kind`: 1 BYTE, 2 ASCII, 3 SHORT, 4 LONG."""
    value = struct.pack(order + {1: "B", 2: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\0")
    head = {"<": b"II\x2a\0", ">": b"MM\0\x2a"}[order] + struct.pack(order + "I", 8)
    return head + struct.pack(order + "HHHI", entries, 0x0112, kind, count) + value + bytes(4)


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(png: bytes, part: bytes, behind_the_pixels: bool = False) -> bytes:
    place = len(png) - _PNG_END_BYTES if behind_the_pixels else _PNG_HEADER_BYTES
    return png[:place] + part + png[place:]


def png_of(depth: int, color: int, rows: bytes, *parts: bytes, interlaced: bool = False) -> bytes:
    """A PNG of `WIDTH` x `HEIGHT`. `rows`: its filtered rows; `parts`: the chunks between the header and the pixels."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, interlaced)
    chunks = (chunk(b"IHDR", header), *parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segment(jpeg: bytes, part: bytes) -> bytes:
    """`part` before the first segment."""
    return jpeg[:2] + part + jpeg[2:]


def without_segments(jpeg: bytes, *markers: int) -> bytes:
    """The JPEG without these segments before its first scan."""
    kept, place = jpeg[:2], 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        kept += b"" if jpeg[place + 1] in markers else jpeg[place:end]
        place = end
    return kept + jpeg[place:]
