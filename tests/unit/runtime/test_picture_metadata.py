"""JPEG, GIF, WebP and TIFF: damaged or long metadata changes no pixel, and takes linear time."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from runtime.files.image_codec import ImageError, decode_image
from runtime.files.picture_metadata import jpeg
from runtime.files.picture_metadata.strip_metadata import strip_metadata
from runtime.files.picture_metadata.stripped_picture import CHECK_EVERY, StripError
from runtime.stage_errors import Cancelled
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.picture_files import (
    HEIGHT,
    PICTURE,
    PLENTY,
    WIDTH,
    encoded,
    exif,
    opened,
    segment,
    stored,
    with_segment,
    without_segments,
    xmp,
)

PLAIN = encoded(Image.fromarray(PICTURE), "JPEG", quality=95)
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
APP1, APP2, APP13, APP14, COMMENT = 0xE1, 0xE2, 0xED, 0xEE, 0xFE
MAX_SEGMENT = 65533
MPF = b"MPF\0" + b"II\x2a\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0xB001, 4, 1, 9)

GIF = encoded(Image.fromarray(PICTURE).quantize(32), "GIF")
COLORS_END = 13 + (3 << (GIF[10] & 7) + 1 if GIF[10] & 0x80 else 0)


def _extension(label: int, *blocks: bytes) -> bytes:
    return b"!" + bytes((label,)) + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for kind, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


DAMAGED = {
    "Exif with a text": segment(APP1, EXIF + b"b'Exif\\x00\\x00II*'"),
    "Exif cut": segment(APP1, EXIF + b"\0\x08\0\x02\x01\x12\0\x03"),
    "Exif empty": segment(APP1, EXIF),
    "Exif whose directory is outside": segment(APP1, EXIF + b"II\x2a\0\xff\xff\xff\xff"),
    "Exif of 65535 entries": segment(APP1, EXIF + exif(1, entries=65535)),
    "Exif of zeros": segment(APP1, EXIF + bytes(MAX_SEGMENT - 6)),
    "orientation 0": segment(APP1, EXIF + exif(0)),
    "orientation 9": segment(APP1, EXIF + exif(9, ">")),
    "orientation as text": segment(APP1, EXIF + exif(ord("6"), kind=2)),
    "a second orientation": segment(APP1, EXIF + exif(1)) + segment(APP1, EXIF + exif(6)),
    "XMP of 1 MB": segment(APP1, XMP + b"a" * 60_000) * 17,
    "XMP without a text": segment(APP1, XMP),
    "ICC of 2 MB": b"".join(segment(APP2, b"ICC_PROFILE\0" + bytes((n, 33)) + bytes(65_000)) for n in range(33)),
    "ICC cut": segment(APP2, b"ICC_PROFILE\0\1"),
    "ICC, one part of three": segment(APP2, b"ICC_PROFILE\0\1\3abc"),
    "MPF cut": segment(APP2, b"MPF\0II"),
    "MPF of nine pictures": segment(APP2, MPF),
    "Photoshop cut": segment(APP13, b"Photoshop 3.0\0008BIM\x03"),
    "Photoshop of zeros": segment(APP13, b"Photoshop 3.0\0008BIM" + bytes(100)),
    "JFIF again": segment(0xE0, b"JFIF\0") + segment(0xE0, b"JFIF\0\1\1\2"),
    "Adobe cut": segment(APP14, b"Adobe\0"),
    "a comment": segment(COMMENT, b"\xff\xfe\0"),
    "every application": b"".join(segment(marker, b"anything") for marker in range(0xE1, 0xF0)),
    "an extension": segment(0xF7, b"anything"),
    "a length of 0": b"\xff\xe5\0\0",
    "a length of 1": b"\xff\xe5\0\1",
    "a length too small": b"\xff\xe5\0\3more than one byte",
    "junk": segment(COMMENT, b"") + b"\0\1\2\3",
    "repeated 0xFF": b"\xff" * 9,
    "a thumbnail": segment(APP1, EXIF + exif(1) + encoded(Image.new("RGB", (64, 64), "red"), "JPEG")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_the_pixels_of_a_jpeg_count(name: str) -> None:
    assert np.array_equal(decode_image(with_segment(PLAIN, DAMAGED[name]), PLENTY), opened(PLAIN))


GOOD = {
    "Exif": lambda n: segment(APP1, EXIF + exif(n)),
    "Exif, big-endian": lambda n: segment(APP1, EXIF + exif(n, ">")),
    "Exif, LONG": lambda n: segment(APP1, EXIF + exif(n, ">", kind=4)),
    "XMP": lambda n: segment(APP1, XMP + xmp(n)),
    "XMP as an element": lambda n: segment(APP1, XMP + b"<tiff:Orientation>%d</tiff:Orientation>" % n),
    "XMP behind a damaged Exif": lambda n: DAMAGED["Exif cut"] + segment(APP1, XMP + xmp(n)),
    "Exif behind a long XMP": lambda n: DAMAGED["XMP of 1 MB"] + segment(APP1, EXIF + exif(n)),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", GOOD)
def test_a_valid_orientation_of_a_jpeg_is_applied(name: str, orientation: int) -> None:
    clean = encoded(stored(orientation), "JPEG", quality=95)
    pixels = decode_image(with_segment(clean, GOOD[name](orientation)), PLENTY)
    assert np.abs(pixels.astype(int) - PICTURE).mean() < 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("name", ["Exif cut", "ICC of 2 MB", "every application"])
def test_every_kind_of_jpeg_is_read_as_without_metadata(mode: str, options: dict[str, Any], name: str) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((WIDTH, HEIGHT), sigma) for sigma in (20, 50, 90)])
    clean = encoded(noise.convert(mode), "JPEG", quality=80, **options)
    assert np.array_equal(decode_image(with_segment(clean, DAMAGED[name]), PLENTY), opened(clean))


@pytest.mark.parametrize("transform", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_adobe_header_decides_the_colours(mode: str, transform: int) -> None:
    """YCCK has transform 2; RGB without a transformation 0."""
    plain = without_segments(encoded(Image.fromarray(PICTURE).convert(mode), "JPEG"), 0xE0, APP14)
    adobe = segment(APP14, b"Adobe\0\x64\0\0\0\0" + bytes((transform,)))
    clean = with_segment(plain, adobe)
    assert np.array_equal(decode_image(with_segment(clean, DAMAGED["Photoshop cut"]), PLENTY), opened(clean))
    others = [opened(with_segment(plain, adobe[:-1] + bytes((n,)))) for n in range(3)]
    assert any(not np.array_equal(one, opened(clean)) for one in others), "the header has an effect"


def test_a_comment_between_two_scans_is_dropped() -> None:
    clean = encoded(Image.fromarray(PICTURE), "JPEG", progressive=True)
    place = clean.rindex(b"\xff\xda")
    data = clean[:place] + segment(COMMENT, b"\xff\xd9\xff\xda") + clean[place:]
    assert np.array_equal(decode_image(data, PLENTY), opened(clean))


def test_what_follows_the_end_of_a_jpeg_is_not_read() -> None:
    assert jpeg.strip(PLAIN + PLAIN * 3 + b"junk", lambda: None) == jpeg.strip(PLAIN, lambda: None)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_is_refused(part: float) -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode_image(with_segment(PLAIN, DAMAGED["Exif cut"])[: int(len(PLAIN) * part)], PLENTY)


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        (segment(APP1, b""), 0.2),
        (segment(APP1, b"Exif\0\0"), 0.2),
        (segment(COMMENT, b"a" * 27), 0.2),
        (segment(COMMENT, b"a" * 28), 1),
        (segment(APP1, EXIF + b"a" * 10), 0.3),
        (segment(0xE0, b"JFIF\0" + bytes(9)), 2),
        (b"\xff\xd8", 0.2),
        (b"\xff\xe1\0\0", 0.2),
        (b"\xff", 0.2),
    ],
)
def test_6_mb_of_tiny_segments_take_linear_time(part: bytes, seconds: float) -> None:
    data = with_segment(PLAIN, part * (6_000_000 // len(part)))
    assert np.array_equal(decode_image(data, PLENTY), opened(PLAIN))
    assert least_cpu_seconds(lambda: decode_image(data, PLENTY)) < seconds


@pytest.mark.parametrize("what", ["scans", "tables"])
def test_a_jpeg_of_very_many_scans_or_tables_is_refused(what: str) -> None:
    progressive = encoded(Image.fromarray(PICTURE), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : progressive.rindex(b"\xff\xd9")]
    data = {
        "scans": progressive[:-2] + scan * jpeg.MAX_SCANS + b"\xff\xd9",
        "tables": with_segment(PLAIN, segment(0xC4, b"") * (jpeg.MAX_TABLES + 1)),
    }[what]
    with pytest.raises(ImageError, match=r"more than 100 scans or 1000 tables: save the picture again"):
        decode_image(data, PLENTY)


def _cancel() -> None:
    raise Cancelled


@pytest.mark.parametrize(
    "data",
    [
        with_segment(PLAIN, segment(COMMENT, b"a" * 28) * CHECK_EVERY),
        GIF[:COLORS_END] + _extension(0xFE, *[b"a"] * CHECK_EVERY) + GIF[COLORS_END:],
        GIF[:COLORS_END] + _extension(0xFE, b"a") * CHECK_EVERY + GIF[COLORS_END:],
        _riff(*[(b"none", b"")] * CHECK_EVERY),
    ],
    ids=["JPEG", "GIF, one comment", "GIF, many comments", "WebP"],
)
def test_a_long_walk_can_be_cancelled(data: bytes) -> None:
    with pytest.raises(Cancelled):
        decode_image(data, PLENTY, _cancel)


def test_decoding_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read checks when 0.05 s have passed since the last check; this clock ticks in seconds."""
    seconds = itertools.count()
    monkeypatch.setattr("runtime.files.image_codec.time.monotonic", lambda: next(seconds))
    with pytest.raises(Cancelled):
        decode_image(encoded(Image.fromarray(PICTURE), "BMP"), PLENTY, _cancel)


# GIF


@pytest.mark.parametrize(
    "part",
    [
        _extension(0xFE, *[b"a" * 255] * 20_000),
        _extension(0xFE, b"a") * 900_000,
        _extension(0xFF, b"XMP DataXMP", *[b"x"] * 3000),
        _extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
        _extension(0xFF, b""),
        _extension(0x01, b"a" * 12),
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


# WebP and TIFF


def _webp(orientation: int, *metadata: tuple[bytes, bytes]) -> bytes:
    simple = encoded(stored(orientation), "WEBP", lossless=True)
    width, height = stored(orientation).size
    flags = bytes((0x2C, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    kind, length = struct.unpack_from("<4sI", simple, 12)
    return _riff((b"VP8X", flags), (kind, simple[20 : 20 + length]), *metadata)


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
    assert np.array_equal(decode_image(_webp(orientation, *metadata), PLENTY), PICTURE)


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


# Any bytes

_VALID = [
    PLAIN,
    GIF,
    encoded(Image.fromarray(PICTURE), "PNG"),
    _webp(6, (b"EXIF", exif(6)), (b"XMP ", xmp(6))),
    encoded(Image.fromarray(PICTURE), "WEBP"),
    encoded(stored(6), "TIFF", tiffinfo={0x0112: 6}),
    with_segment(PLAIN, segment(APP1, EXIF + exif(1)) + segment(APP1, XMP + xmp(1))),
]


@given(st.sampled_from(_VALID), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=20))
@example(PLAIN, 0.0, 1.0, b"\xff\xd8\xff\xda")
@example(GIF, 0.001, 1.0, b"GIF89a")
def test_any_bytes_are_stripped_or_refused(data: bytes, start: float, end: float, replaced: bytes) -> None:
    first, last = sorted((int(start * len(data)), int(end * len(data))))
    for changed in (data[:first] + replaced + data[last:], data[:first] + replaced + data[first + len(replaced) :]):
        try:
            stripped = strip_metadata(changed, lambda: None)
        except StripError:
            continue
        assert 1 <= stripped.orientation <= 8
        assert len(stripped.data) <= len(changed) + 100


@given(
    st.sampled_from([b"\xff\xd8\xff", b"GIF89a", b"II\x2a\0", b"MM\0\x2b", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n"]),
    st.binary(max_size=200),
)
def test_any_bytes_behind_a_head_are_refused_as_a_picture(head: bytes, rest: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(head + rest, PLENTY)


@given(
    st.lists(
        st.tuples(st.integers(0xE0, 0xFE).filter(lambda marker: marker not in (0xE0, APP14)), st.binary(max_size=99))
    )
)
def test_any_segments_change_no_pixel(parts: list[tuple[int, bytes]]) -> None:
    data = with_segment(PLAIN, b"".join(segment(*part) for part in parts))
    with Image.open(io.BytesIO(jpeg.strip(data, lambda: None).data)) as image:
        assert np.array_equal(np.asarray(image), opened(PLAIN))
