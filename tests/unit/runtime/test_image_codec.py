"""Pictures: what Pillow wrote is read back as what it shows, and what is no picture is an ImageError."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.files.image_codec import MAX_JPEG_SIDE, MIN_SIDE, ImageError, Pixels, decode_image, encode_image
from tests.unit.runtime.picture_files import HEIGHT, PICTURE, PLENTY, WIDTH, encoded, stored


def _solid(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), color)


def _colors(pixels: Pixels) -> set[tuple[int, ...]]:
    return {tuple(color) for color in pixels.reshape(-1, 3).tolist()}


@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_are_read_exactly(file_format: str, options: dict[str, Any]) -> None:
    pixels = decode_image(encoded(Image.fromarray(PICTURE), file_format, **options), PLENTY)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, PICTURE)


def test_jpeg_is_read_nearly() -> None:
    pixels = decode_image(encoded(Image.fromarray(PICTURE), "JPEG", quality=95), PLENTY)
    assert np.abs(pixels.astype(int) - PICTURE).mean() < 2


def test_a_palette_is_resolved() -> None:
    assert _colors(decode_image(encoded(_solid("RGB", (10, 200, 30)).quantize(4), "GIF"), PLENTY)) == {(10, 200, 30)}


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [_solid("RGB", color).quantize(4) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert _colors(decode_image(data, PLENTY)) == {(255, 0, 0)}


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (_solid("RGBA", (255, 0, 0, 0)), (255, 255, 255)),
        (_solid("RGBA", (255, 0, 0, 255)), (255, 0, 0)),
        (_solid("LA", (0, 0)), (255, 255, 255)),
        (_solid("L", 77), (77, 77, 77)),
        (_solid("1", 1), (255, 255, 255)),
    ],
)
def test_transparency_is_over_white(image: Image.Image, color: tuple[int, ...]) -> None:
    assert _colors(decode_image(encoded(image, "PNG"), PLENTY)) == {color}


def test_half_transparency_is_half_white() -> None:
    pixels = decode_image(encoded(_solid("RGBA", (0, 0, 0, 128)), "PNG"), PLENTY)
    assert np.abs(pixels.astype(int) - 127).max() <= 1


def test_the_transparent_color_of_a_palette_is_white() -> None:
    image = _solid("P", 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert _colors(decode_image(encoded(image, "PNG", transparency=1), PLENTY)) == {(255, 255, 255)}


@pytest.mark.parametrize("value", [0, 256, 12345, 40000, 65535])
def test_sixteen_bits_of_grey_are_scaled_to_eight(value: int) -> None:
    image = Image.fromarray(np.full((HEIGHT, WIDTH), value, np.uint16))
    pixels = decode_image(encoded(image, "PNG"), PLENTY)
    assert np.abs(pixels - value / 257).max() <= 1


def test_cmyk_is_converted() -> None:
    pixels = decode_image(encoded(_solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), PLENTY)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(stored(orientation), "PNG", exif=tags), PLENTY), PICTURE)


def test_a_picture_of_too_many_pixels_is_refused() -> None:
    data = encoded(Image.fromarray(PICTURE), "PNG")
    assert decode_image(data, WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageError, match="80x64 pixels: expected at most 5119"):
        decode_image(data, WIDTH * HEIGHT - 1)


@pytest.mark.parametrize(("width", "height"), [(MIN_SIDE - 1, 100), (100, MIN_SIDE - 1)])
def test_a_picture_too_small_for_the_unet_is_refused(width: int, height: int) -> None:
    with pytest.raises(ImageError, match="at least 64"):
        decode_image(encoded(Image.new("RGB", (width, height)), "PNG"), PLENTY)


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG whose head claims that size, with next to no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 10))]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [2000, 10_000, 1_000_000])
def test_a_size_that_is_only_claimed_is_refused_before_anything_is_decoded(side: int) -> None:
    with pytest.raises(ImageError, match=r"at most \d+"):
        decode_image(_png_claiming(side, side), PLENTY)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_half_a_picture_is_refused(file_format: str, part: float) -> None:
    data = encoded(Image.effect_noise((WIDTH, HEIGHT), 80).convert("RGB"), file_format)
    with pytest.raises(ImageError):
        decode_image(data[: int(len(data) * part)], PLENTY)


@pytest.mark.parametrize("file_format", ["PPM", "ICO", "TGA"])
def test_other_formats_are_refused(file_format: str) -> None:
    with pytest.raises(ImageError, match="not a picture: expected one of the formats"):
        decode_image(encoded(Image.fromarray(PICTURE), file_format), PLENTY)


@given(st.binary(max_size=300))
@example(b"")
def test_random_bytes_are_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data, PLENTY)


_VALID = {name: encoded(Image.fromarray(PICTURE), name) for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(_VALID)),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
)
def test_a_damaged_picture_is_read_or_refused(name: str, place: float, junk: bytes) -> None:
    data = bytearray(_VALID[name])
    start = int(place * len(data))
    data[start : start + len(junk)] = junk
    try:
        pixels = decode_image(bytes(data), PLENTY)
    except ImageError:
        return
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


def test_png_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 70, 3), np.uint8)
    with Image.open(io.BytesIO(encode_image(pixels, "png"))) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(("image_format", "file_format"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_the_format_is_the_one_asked_for(image_format: Literal["png", "jpeg"], file_format: str) -> None:
    with Image.open(io.BytesIO(encode_image(PICTURE, image_format))) as image:
        assert (image.format, image.size) == (file_format, (WIDTH, HEIGHT))
        assert np.abs(np.asarray(image).astype(int) - PICTURE).mean() < 2


def test_the_longest_side_of_a_jpeg_file() -> None:
    pixels = np.zeros((1, MAX_JPEG_SIDE + 1, 3), np.uint8)
    with Image.open(io.BytesIO(encode_image(pixels[:, 1:], "jpeg"))) as image:
        assert image.size == (MAX_JPEG_SIDE, 1)
    with pytest.raises(OSError, match="broken data stream"):
        encode_image(pixels, "jpeg")
