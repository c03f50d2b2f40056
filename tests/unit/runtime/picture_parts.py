"""Parts of JPEG, GIF and WebP files."""

from __future__ import annotations

import struct

from PIL import Image

from tests.unit.runtime.picture_files import PICTURE, encoded, stored

JPEG = encoded(Image.fromarray(PICTURE), "JPEG", quality=95)
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
APP1, APP2, APP13, APP14, COMMENT = 0xE1, 0xE2, 0xED, 0xEE, 0xFE
GIF = encoded(Image.fromarray(PICTURE).quantize(32), "GIF")
COLORS_END = 13 + (3 << (GIF[10] & 7) + 1 if GIF[10] & 0x80 else 0)


def gif_extension(label: int, *blocks: bytes) -> bytes:
    return b"!" + bytes((label,)) + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp(orientation: int, *metadata: tuple[bytes, bytes]) -> bytes:
    simple = encoded(stored(orientation), "WEBP", lossless=True)
    width, height = stored(orientation).size
    flags = bytes((0x2C, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    kind, length = struct.unpack_from("<4sI", simple, 12)
    return riff((b"VP8X", flags), (kind, simple[20 : 20 + length]), *metadata)
