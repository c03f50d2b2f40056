"""GIF, WebP and TIFF: damaged or long metadata changes no pixel, and takes linear time."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from runtime.files.image_codec import ImageError, decode_image
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.picture_files import HEIGHT, PICTURE, PLENTY, WIDTH, encoded, exif, opened, stored, xmp
from tests.unit.runtime.picture_parts import COLORS_END, EXIF, GIF, gif_extension, webp


@pytest.mark.parametrize(
    "part",
    [
        gif_extension(0xFE, *[b"a" * 255] * 20_000),
        gif_extension(0xFE, b"a") * 900_000,
        gif_extension(0xFF, b"XMP DataXMP", *[b"x"] * 3000),
        gif_extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
        gif_extension(0xFF, b""),
        gif_extension(0x01, b"a" * 12),
        b"\0\0\0",
    ],
    ids=["long comment", "many comments", "XMP", "loop", "empty", "text", "junk"],
)
def test_the_pixels_of_a_gif_count(part: bytes) -> None:
    data = GIF[:COLORS_END] + part + GIF[COLORS_END:]
    assert np.array_equal(decode_image(data, PLENTY), opened(GIF))
    assert least_cpu_seconds(lambda: decode_image(data, PLENTY)) < 2


def test_the_transparent_colour_of_a_gif_is_white() -> None:
    image = Image.fromarray(np.tile(np.arange(2, dtype=np.uint8), (HEIGHT, WIDTH // 2)), "P")
    image.putpalette([0, 0, 255, 9, 9, 9])
    pixels = decode_image(encoded(image, "GIF", transparency=0), PLENTY)
    assert np.array_equal(pixels[0, :2], [(255, 255, 255), (9, 9, 9)])


@pytest.mark.parametrize(
    ("orientation", "metadata"),
    [
        (1, [(b"EXIF", b"b'Exif\\x00\\x00II*'")]),
        (1, [(b"EXIF", b"")]),
        (1, [(b"EXIF", exif(9))]),
        (1, [(b"XMP ", b"a" * (2 << 20))]),
        (1, [(b"ICCP", bytes(2 << 20)), (b"EXIF", exif(0, ">"))]),
        (1, [(b"none", b"")] * 1000),
        (6, [(b"EXIF", exif(6))]),
        (3, [(b"EXIF", EXIF + exif(3, ">"))]),
        (8, [(b"XMP ", xmp(8))]),
        (5, [(b"EXIF", b"II\x2a\0"), (b"XMP ", xmp(5))]),
    ],
)
def test_the_pixels_and_the_orientation_of_a_webp_count(orientation: int, metadata: list[tuple[bytes, bytes]]) -> None:
    assert np.array_equal(decode_image(webp(orientation, *metadata), PLENTY), PICTURE)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_tiff_is_read_as_by_pillow(mode: str, compression: str | None) -> None:
    source = Image.fromarray(PICTURE)
    grey = np.asarray(source.convert("L"))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else source.convert(mode)
    data = encoded(image, "TIFF", compression=compression, icc_profile=bytes(100_000), description="a" * 100_000)
    expected = np.repeat(grey[..., None], 3, axis=-1) if mode == "I;16" else opened(data)
    assert np.array_equal(decode_image(data, PLENTY), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied(orientation: int) -> None:
    data = encoded(stored(orientation), "TIFF", tiffinfo={0x0112: orientation})
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)


def _tiff_with_tags(tags: int, length: int) -> bytes:
    """A TIFF in which `tags` further tags refer to the same `length` bytes."""
    clean = encoded(Image.fromarray(PICTURE), "TIFF")
    (start,) = struct.unpack_from("<I", clean, 4)
    (entries,) = struct.unpack_from("<H", clean, start)
    own = clean[start + 2 : start + 2 + 12 * entries]
    junk = b"".join(struct.pack("<HHII", 40_000 + n, 7, length, 8) for n in range(tags))
    directory = struct.pack("<H", entries + tags) + own + junk + bytes(4)
    data = clean + bytes(max(0, length - len(clean)))
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def test_the_tags_of_a_tiff_do_not_multiply_its_memory() -> None:
    data = _tiff_with_tags(tags=2000, length=8 << 20)
    tracemalloc.start()
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    tracemalloc.stop()


def test_a_tiff_of_very_many_tags_is_refused() -> None:
    with pytest.raises(ImageError, match=r"a TIFF with \d+ tags: expected at most 4096"):
        decode_image(_tiff_with_tags(tags=5000, length=4), PLENTY)
