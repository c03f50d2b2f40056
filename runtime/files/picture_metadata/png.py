"""PNG: keeps the chunks that contain pixels, drops all others, and reads the orientation.

Damaged metadata makes Pillow refuse a picture, and long metadata makes it slow. Browsers ignore both.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.files.picture_metadata.orientation import MAX_METADATA, orientation_of
from runtime.files.picture_metadata.stripped_picture import CheckCancelled, StripError, StrippedPicture, checked_parts

MAGIC = b"\x89PNG\r\n\x1a\n"

_HEAD = struct.Struct(">I4s")  # length of the content, kind
_CRC_BYTES = 4
_PIXEL_KINDS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_ANY_PIXEL_KIND = re.compile(b"|".join(sorted(_PIXEL_KINDS)))
_TEXT_KINDS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_RAW_EXIF_HEAD_LINES = 3  # an empty line, the name, the length

_IHDR_BYTES = 13
_GREY, _RGB, _PALETTE = 0, 2, 3


@dataclass(frozen=True)
class _Chunk:
    """The place of a chunk's content in the file."""

    kind: bytes
    start: int
    end: int


def strip(data: bytes, check_cancelled: CheckCancelled) -> StrippedPicture:
    """A PNG of IHDR, PLTE, tRNS, one IDAT and IEND. Raises StripError, and what `check_cancelled` raises."""
    first: dict[bytes, _Chunk] = {}
    pixels = bytearray()
    for chunk in _chunks(data, check_cancelled):
        if chunk.kind == b"IDAT":
            pixels += memoryview(data)[chunk.start : chunk.end]
        else:
            first.setdefault(_name(data, chunk), chunk)
    header = _content(data, first.get(b"IHDR"))
    if len(header) < _IHDR_BYTES or not pixels:
        raise StripError("the picture is damaged (the PNG has no header or no pixels)")
    depth, color = header[8], header[9]
    parts: list[bytes | bytearray] = [MAGIC, _whole(data, first[b"IHDR"])]
    if color == _PALETTE and b"PLTE" in first:
        parts.append(_whole(data, first[b"PLTE"]))
    if transparency := _transparency(data, first.get(b"tRNS"), depth, color):
        parts += _parts(b"tRNS", transparency)
    parts += [*_parts(b"IDAT", pixels), *_parts(b"IEND", b"")]
    return StrippedPicture(b"".join(parts), _orientation(data, first))


def _chunks(data: bytes, check_cancelled: CheckCancelled) -> Iterator[_Chunk]:
    """All chunks to IEND. Behind a chunk whose length is wrong, the next chunk of pixels is searched."""
    place = len(MAGIC)
    for _ in checked_parts(check_cancelled):
        if place + _HEAD.size > len(data):
            return
        length, kind = _HEAD.unpack_from(data, place)
        start = place + _HEAD.size
        end = start + length
        place = end + _CRC_BYTES
        if kind in _PIXEL_KINDS or _is_chunk_or_end(data, place):
            yield _Chunk(kind, start, min(end, len(data)))
            if kind == b"IEND":
                return
        elif found := _ANY_PIXEL_KIND.search(data, start):
            place = found.start() - 4  # the four bytes of its length
        else:
            return


def _is_chunk_or_end(data: bytes, place: int) -> bool:
    return place == len(data) or data[place + 4 : place + 8].isalpha()


def _name(data: bytes, chunk: _Chunk) -> bytes:
    """A chunk's kind, or the keyword of a text that may contain an orientation."""
    if chunk.kind in _TEXT_KINDS:
        for keyword in (_RAW_EXIF, _XMP):
            if data.startswith(keyword + b"\0", chunk.start, chunk.end):
                return keyword
    return chunk.kind


def _content(data: bytes, chunk: _Chunk | None) -> bytes:
    return data[chunk.start : chunk.end] if chunk else b""


def _whole(data: bytes, chunk: _Chunk) -> bytes:
    """The chunk with its length, kind and checksum, which Pillow checks."""
    return data[chunk.start - _HEAD.size : chunk.end + _CRC_BYTES]


def _parts(kind: bytes, content: bytes | bytearray) -> tuple[bytes, bytes | bytearray, bytes]:
    """A chunk's head, content and checksum."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return _HEAD.pack(len(content), kind), content, checksum.to_bytes(_CRC_BYTES, "big")


def _transparency(data: bytes, chunk: _Chunk | None, depth: int, color: int) -> bytes:
    """The content of tRNS as Pillow applies it; empty when it is absent or damaged, which browsers ignore.

    Pillow compares the transparent colour with 8-bit samples, but for 1-bit and 16-bit grey.
    """
    content = _content(data, chunk)
    if chunk is None or b"".join(_parts(chunk.kind, content)) != _whole(data, chunk):
        return b""
    if color == _PALETTE:
        return content[:256]
    if (color, len(content)) not in ((_GREY, 2), (_RGB, 6)):
        return b""
    samples = struct.unpack(f">{len(content) // 2}H", content)
    if color == _RGB and depth == 16:
        samples = tuple(sample >> 8 for sample in samples)
    elif color == _GREY and depth in (2, 4):
        samples = tuple((sample & (1 << depth) - 1) * 255 // ((1 << depth) - 1) for sample in samples)
    return struct.pack(f">{len(samples)}H", *samples)


def _orientation(data: bytes, first: dict[bytes, _Chunk]) -> int:
    texts = {name: _text(data, first[name]) for name in (_RAW_EXIF, _XMP) if name in first}
    exif, raw = _content(data, first.get(b"eXIf")), _from_hex(texts.get(_RAW_EXIF, b""))
    return orientation_of(exif, raw, xmp=texts.get(_XMP, b""))


def _text(data: bytes, chunk: _Chunk) -> bytes:
    """At most `MAX_METADATA` bytes of the text of a chunk; empty if it is damaged."""
    text = _content(data, chunk).partition(b"\0")[2]
    is_compressed = chunk.kind == b"zTXt"
    if chunk.kind == b"zTXt":
        text = text[1:]  # the method of compression
    elif chunk.kind == b"iTXt":
        is_compressed = text[:1] != b"\0"
        text = text[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
    if not is_compressed:
        return text[:MAX_METADATA]
    try:
        return zlib.decompressobj().decompress(text, MAX_METADATA)
    except zlib.error:
        return b""


def _from_hex(profile: bytes) -> bytes:
    """The bytes of an ImageMagick profile; empty if it is not hexadecimal."""
    try:
        return bytes.fromhex("".join(profile.decode("ascii").split("\n")[_RAW_EXIF_HEAD_LINES:]))
    except ValueError:
        return b""
