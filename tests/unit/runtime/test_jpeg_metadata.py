"""JPEG: damaged or long metadata changes no pixel, a valid orientation is applied, and the time is linear."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtime.files.image_codec import ImageError, decode_image
from runtime.files.picture_metadata import jpeg
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
from tests.unit.runtime.picture_parts import APP1, APP2, APP13, APP14, COMMENT, EXIF, JPEG, XMP

MAX_SEGMENT = 65533
MPF = b"MPF\0" + b"II\x2a\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0xB001, 4, 1, 9)


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
    assert np.array_equal(decode_image(with_segment(JPEG, DAMAGED[name]), PLENTY), opened(JPEG))


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
    assert jpeg.strip(JPEG + JPEG * 3 + b"junk", lambda: None) == jpeg.strip(JPEG, lambda: None)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_cut_jpeg_is_refused(part: float) -> None:
    with pytest.raises(ImageError, match="damaged"):
        decode_image(with_segment(JPEG, DAMAGED["Exif cut"])[: int(len(JPEG) * part)], PLENTY)


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
    data = with_segment(JPEG, part * (6_000_000 // len(part)))
    assert np.array_equal(decode_image(data, PLENTY), opened(JPEG))
    assert least_cpu_seconds(lambda: decode_image(data, PLENTY)) < seconds


@pytest.mark.parametrize("what", ["scans", "tables"])
def test_a_jpeg_of_very_many_scans_or_tables_is_refused(what: str) -> None:
    progressive = encoded(Image.fromarray(PICTURE), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : progressive.rindex(b"\xff\xd9")]
    data = {
        "scans": progressive[:-2] + scan * jpeg.MAX_SCANS + b"\xff\xd9",
        "tables": with_segment(JPEG, segment(0xC4, b"") * (jpeg.MAX_TABLES + 1)),
    }[what]
    with pytest.raises(ImageError, match=r"more than 100 scans or 1000 tables: save the picture again"):
        decode_image(data, PLENTY)


@given(
    st.lists(
        st.tuples(st.integers(0xE0, 0xFE).filter(lambda marker: marker not in (0xE0, APP14)), st.binary(max_size=99))
    )
)
def test_any_segments_change_no_pixel(parts: list[tuple[int, bytes]]) -> None:
    data = with_segment(JPEG, b"".join(segment(*part) for part in parts))
    with Image.open(io.BytesIO(jpeg.strip(data, lambda: None).data)) as image:
        assert np.array_equal(np.asarray(image), opened(JPEG))
