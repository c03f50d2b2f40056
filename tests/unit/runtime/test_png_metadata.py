"""PNG: damaged or long metadata changes no pixel, a valid orientation is applied, transparency is as PNG defines it."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtime.files.image_codec import ImageError, decode_image
from runtime.files.picture_metadata import png
from runtime.files.picture_metadata.stripped_picture import CHECK_EVERY, StripError
from runtime.stage_errors import Cancelled
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.picture_files import (
    HEIGHT,
    PICTURE,
    PLENTY,
    WIDTH,
    chunk,
    encoded,
    exif,
    opened,
    png_of,
    stored,
    with_chunk,
    xmp,
)

PLAIN = encoded(Image.fromarray(PICTURE), "PNG")
LONG = zlib.compress(b"a" * (1 << 21))
_RAW = b"Raw profile type exif\0"


def _raw_profile(hexadecimal: bytes) -> bytes:
    return b"\nexif\n%8d\n%s\n" % (len(hexadecimal) // 2, hexadecimal)


def _broken_checksum(part: bytes) -> bytes:
    return part[:-1] + bytes((part[-1] ^ 1,))


DAMAGED = {
    "eXIf with a Python repr": chunk(b"eXIf", b"b'Exif\\x00\\x00II*'"),
    "eXIf cut in its directory": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "eXIf cut in its head": chunk(b"eXIf", b"II\x2a\0\x08"),
    "eXIf empty": chunk(b"eXIf", b""),
    "eXIf only of prefixes": chunk(b"eXIf", b"Exif\0\0" * 3),
    "eXIf whose directory is outside": chunk(b"eXIf", b"II\x2a\0\xff\xff\xff\xff"),
    "eXIf of 65535 entries": chunk(b"eXIf", exif(1, entries=65535)),
    "eXIf of 2 MB": chunk(b"eXIf", bytes(1 << 21)),
    "orientation 0": chunk(b"eXIf", exif(0)),
    "orientation 9": chunk(b"eXIf", exif(9, ">")),
    "orientation 60000": chunk(b"eXIf", exif(60000)),
    "orientation as text": chunk(b"eXIf", exif(ord("6"), kind=2)),
    "orientation of no values": chunk(b"eXIf", exif(6, count=0)),
    "orientation of many values": chunk(b"eXIf", exif(6, count=1000)),
    "raw profile, not hexadecimal": chunk(b"zTXt", _RAW + b"\0" + zlib.compress(_raw_profile(b"zz"))),
    "raw profile, not ASCII": chunk(b"tEXt", _RAW + _raw_profile(b"\xff\xfe")),
    "raw profile, not compressed": chunk(b"zTXt", _RAW + b"\0nothing"),
    "raw profile of one line": chunk(b"tEXt", _RAW + b"exif"),
    "zTXt of 2 MB": chunk(b"zTXt", b"workflow\0\0" + LONG),
    "zTXt of an unknown method": chunk(b"zTXt", b"workflow\0\x07" + LONG),
    "zTXt without a keyword": chunk(b"zTXt", b"\0\0" + LONG),
    "iTXt of 2 MB": chunk(b"iTXt", b"prompt\0\x01\0\0\0" + LONG),
    "iTXt cut": chunk(b"iTXt", b"prompt\0"),
    "XMP of 2 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LONG),
    "XMP without text": chunk(b"iTXt", b"XML:com.adobe.xmp\0"),
    "XMP, not compressed": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0nothing"),
    "tEXt of 3 MB": chunk(b"tEXt", b"workflow\0" + b"a" * (3 << 20)),
    "70 texts of 1 MB": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) * 70,
    "iCCP of 2 MB": chunk(b"iCCP", b"ICC\0\0" + LONG),
    "iCCP cut": chunk(b"iCCP", b"ICC\0"),
    "iCCP of an unknown method": chunk(b"iCCP", b"ICC\0\x05abc"),
    "gAMA cut": chunk(b"gAMA", b"\0"),
    "cHRM cut": chunk(b"cHRM", b"\0" * 3),
    "sRGB empty": chunk(b"sRGB", b""),
    "pHYs cut": chunk(b"pHYs", b"\0" * 2),
    "a wrong checksum": _broken_checksum(chunk(b"tEXt", b"a\0b")),
    "an unknown chunk": chunk(b"quIt", b"\0" * 99),
    "acTL cut": chunk(b"acTL", b"\0"),
    "fcTL cut": chunk(b"fcTL", b"\0"),
    "fcTL of another size": chunk(b"fcTL", struct.pack(">IIIIIHHBB", 5, 9000, 9000, 0, 0, 1, 1, 0, 0)),
    "fdAT without a frame": chunk(b"fdAT", b"\0\0\0\x09abc"),
    "a length too great": struct.pack(">I", 1 << 30) + b"tEXta\0b" + bytes(4),
    "a length too small": struct.pack(">I", 1) + b"tEXtcomment\0of more bytes" + bytes(4),
    "no chunk at all": b"\0\1\2\3" * 5,
}


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("name", DAMAGED)
def test_the_pixels_count(name: str, behind: bool) -> None:
    assert np.array_equal(decode_image(with_chunk(PLAIN, DAMAGED[name], behind), PLENTY), PICTURE)


GOOD = {
    "eXIf": lambda n: chunk(b"eXIf", exif(n)),
    "eXIf, big-endian": lambda n: chunk(b"eXIf", exif(n, ">")),
    "eXIf, LONG": lambda n: chunk(b"eXIf", exif(n, ">", kind=4)),
    "eXIf, BYTE": lambda n: chunk(b"eXIf", exif(n, kind=1)),
    "eXIf with JPEG's prefix": lambda n: chunk(b"eXIf", b"Exif\0\0" + exif(n)),
    "raw profile": lambda n: chunk(b"tEXt", _RAW + _raw_profile((b"Exif\0\0" + exif(n)).hex().encode())),
    "raw profile, compressed": lambda n: chunk(
        b"zTXt", _RAW + b"\0" + zlib.compress(_raw_profile(exif(n).hex().encode()))
    ),
    "XMP": lambda n: chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(n)),
    "XMP, compressed": lambda n: chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(xmp(n))),
    "XMP behind a damaged eXIf": lambda n: (
        DAMAGED["orientation 9"] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(n))
    ),
    "eXIf behind long texts": lambda n: DAMAGED["zTXt of 2 MB"] + chunk(b"eXIf", exif(n)),
    "eXIf behind a wrong length": lambda n: DAMAGED["an unknown chunk"] + chunk(b"eXIf", exif(n)),
}


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", GOOD)
def test_a_valid_orientation_is_applied(name: str, orientation: int, behind: bool) -> None:
    data = with_chunk(encoded(stored(orientation), "PNG"), GOOD[name](orientation), behind)
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)


@given(st.integers(0, 65535), st.sampled_from([1, 3, 4]), st.sampled_from("<>"))
def test_a_damaged_orientation_is_upright(orientation: int, kind: int, order: str) -> None:
    orientation &= 0xFF if kind == 1 else 0xFFFF
    expected = orientation if 1 <= orientation <= 8 else 1
    data = with_chunk(encoded(stored(expected), "PNG"), chunk(b"eXIf", exif(orientation, order, kind)))
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)


# Transparency


def _rows(samples: np.ndarray[Any, Any]) -> bytes:
    """Rows of big-endian samples, each behind the filter type 0."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


def _grey16(values: np.ndarray[Any, Any], *parts: bytes) -> bytes:
    return png_of(16, 0, _rows(values.astype(">u2")), *parts)


@pytest.mark.parametrize("transparent", [0, 1000, 40000, 65535, 12345])
def test_of_16_bit_grey_only_the_transparent_value_is_white(transparent: int) -> None:
    values = np.tile(np.array([0, 1000, 1001, 40000, 65535], np.uint16), (HEIGHT, WIDTH // 5))
    pixels = decode_image(_grey16(values, chunk(b"tRNS", struct.pack(">H", transparent))), PLENTY)
    expected = np.where(values == transparent, 255, values >> 8)
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize("transparent", range(16))
def test_of_4_bit_grey_only_the_transparent_value_is_white(transparent: int) -> None:
    samples = np.tile(np.arange(16, dtype=np.uint8), (HEIGHT, WIDTH // 16))
    packed = samples[:, ::2] << 4 | samples[:, 1::2]
    pixels = decode_image(png_of(4, 0, _rows(packed), chunk(b"tRNS", struct.pack(">H", transparent))), PLENTY)
    assert np.array_equal(pixels[..., 0], np.where(samples == transparent, 255, samples * 17))


@pytest.mark.parametrize("transparent", range(4))
def test_of_2_bit_grey_only_the_transparent_value_is_white(transparent: int) -> None:
    samples = np.tile(np.arange(4, dtype=np.uint8), (HEIGHT, WIDTH // 4))
    packed = np.full((HEIGHT, WIDTH // 4), 0b00011011, np.uint8)
    pixels = decode_image(png_of(2, 0, _rows(packed), chunk(b"tRNS", struct.pack(">H", transparent))), PLENTY)
    assert np.array_equal(pixels[..., 0], np.where(samples == transparent, 255, samples * 85))


def test_black_pixels_of_one_bit_may_be_transparent() -> None:
    packed = np.full((HEIGHT, WIDTH // 8), 0b01010101, np.uint8)
    assert decode_image(png_of(1, 0, _rows(packed), chunk(b"tRNS", bytes(2))), PLENTY).min() == 255
    assert decode_image(png_of(1, 0, _rows(packed)), PLENTY).min() == 0


def test_of_16_bit_colours_only_the_transparent_one_is_white() -> None:
    values = np.zeros((HEIGHT, WIDTH, 3), ">u2")
    values[::2] = (0x1234, 0x5678, 0x9ABC)
    values[1::2] = (0x3412, 0x7856, 0xBC9A)
    pixels = decode_image(
        png_of(16, 2, _rows(values.reshape(HEIGHT, -1)), chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))),
        PLENTY,
    )
    assert pixels[::2].min() == 255
    assert np.array_equal(pixels[1, 0], (0x34, 0x78, 0xBC))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("noise", [False, True])
def test_every_mode_is_read_as_without_metadata(mode: str, noise: bool) -> None:
    source = Image.effect_noise((WIDTH, HEIGHT), 90).convert("RGB") if noise else Image.fromarray(PICTURE)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    else:
        image = source.convert(mode)
    clean = encoded(image, "PNG")
    assert np.array_equal(
        decode_image(with_chunk(clean, DAMAGED["iCCP of 2 MB"]), PLENTY),
        np.asarray(source.convert("L").convert("RGB")) if mode == "I;16" else opened(clean),
    )


def test_a_palette_s_alpha_is_applied_entry_by_entry() -> None:
    image = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (HEIGHT, WIDTH // 4)), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    pixels = decode_image(encoded(image, "PNG", transparency=bytes((255, 0, 128, 255))), PLENTY)
    assert np.abs(pixels[0, :4].astype(int) - [(0, 0, 0), (255, 255, 255), (127, 255, 127), (0, 0, 255)]).max() <= 1


@pytest.mark.parametrize(
    "part",
    [
        _broken_checksum(chunk(b"tRNS", struct.pack(">3H", 0, 0, 90))),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", b""),
        chunk(b"tRNS", bytes(300)),
    ],
    ids=["checksum", "cut", "empty", "long"],
)
def test_damaged_transparency_is_ignored(part: bytes) -> None:
    assert np.array_equal(decode_image(with_chunk(PLAIN, part), PLENTY), PICTURE)


def test_an_interlaced_picture_is_read() -> None:
    grey = PICTURE[..., 0]
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(_rows(grey[y::down, x::right]) for y, x, down, right in passes)
    data = with_chunk(png_of(8, 0, rows, interlaced=True), DAMAGED["zTXt of 2 MB"])
    assert np.array_equal(decode_image(data, PLENTY)[..., 0], grey)


@pytest.mark.parametrize("default", [False, True])
def test_the_first_frame_of_an_animation_counts(default: bool) -> None:
    frames = [Image.fromarray(PICTURE), Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=default)
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pixels_may_be_in_many_chunks(size: int) -> None:
    raw = zlib.compress(_rows(PICTURE.reshape(HEIGHT, -1)))
    pieces = [chunk(b"IDAT", raw[i : i + size]) for i in range(0, len(raw), size)]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    text = chunk(b"tEXt", b"Comment\0between")
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text.join(pieces) + chunk(b"IEND", b"")
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)


@pytest.mark.parametrize("cut", [8, 20, 33, 60, len(PLAIN) // 2, len(PLAIN) - 30])
def test_a_cut_picture_is_refused(cut: int) -> None:
    with pytest.raises(ImageError, match=r"damaged|not a picture"):
        decode_image(PLAIN[:cut], PLENTY)


def test_a_picture_without_its_end_is_read() -> None:
    assert np.array_equal(decode_image(PLAIN[:-12], PLENTY), PICTURE)


# Hostile files


@given(st.lists(st.tuples(st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"acTL"]), st.binary())))
def test_any_metadata_changes_no_pixel(parts: list[tuple[bytes, bytes]]) -> None:
    clean = with_chunk(PLAIN, b"".join(chunk(*part) for part in parts if part[0] != b"eXIf"))
    assert np.array_equal(decode_image(clean, PLENTY), PICTURE)
    whole = with_chunk(PLAIN, b"".join(chunk(*part) for part in parts))
    assert decode_image(whole, PLENTY).size == PICTURE.size


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"tEXt", b"eXIf", b"\0\1\2\3"]),
            st.binary(max_size=40),
            st.none() | st.integers(0, 2**32 - 1),
        )
    )
)
def test_any_chunks_are_stripped_or_refused(parts: list[tuple[bytes, bytes, int | None]]) -> None:
    data = png.MAGIC
    for kind, content, length in parts:
        part = chunk(kind, content)
        data += part if length is None else struct.pack(">I", length) + part[4:]
    try:
        stripped = png.strip(data, lambda: None)
    except StripError:
        return
    assert len(stripped.data) <= len(data) + 100
    assert 1 <= stripped.orientation <= 8


@pytest.mark.parametrize(
    "part",
    [chunk(b"tEXt", b""), chunk(b"IDAT", b""), chunk(b"tRNS", b""), chunk(b"eXIf", b"I"), b"\0\0\0\1quIt"],
    ids=["text", "pixels", "transparency", "Exif", "wrong lengths"],
)
def test_6_mb_of_tiny_chunks_take_linear_time(part: bytes) -> None:
    data = with_chunk(PLAIN, part * (6_000_000 // len(part)))
    assert np.array_equal(decode_image(data, PLENTY), PICTURE)
    assert least_cpu_seconds(lambda: decode_image(data, PLENTY)) < 2


def test_long_metadata_can_be_cancelled() -> None:
    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        decode_image(with_chunk(PLAIN, chunk(b"tEXt", b"") * CHECK_EVERY), PLENTY, cancel)
