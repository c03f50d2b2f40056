"""Metadata of pictures of any format: reading it can be cancelled, and any bytes are stripped or refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from runtime.files.image_codec import ImageError, decode_image
from runtime.files.picture_metadata.strip_metadata import strip_metadata
from runtime.files.picture_metadata.stripped_picture import CHECK_EVERY, StripError
from runtime.stage_errors import Cancelled
from tests.unit.runtime.picture_files import PICTURE, PLENTY, encoded, exif, segment, stored, with_segment, xmp
from tests.unit.runtime.picture_parts import APP1, COLORS_END, COMMENT, EXIF, GIF, JPEG, XMP, gif_extension, riff, webp


def _cancel() -> None:
    raise Cancelled


@pytest.mark.parametrize(
    "data",
    [
        with_segment(JPEG, segment(COMMENT, b"a" * 28) * CHECK_EVERY),
        GIF[:COLORS_END] + gif_extension(0xFE, *[b"a"] * CHECK_EVERY) + GIF[COLORS_END:],
        GIF[:COLORS_END] + gif_extension(0xFE, b"a") * CHECK_EVERY + GIF[COLORS_END:],
        riff(*[(b"none", b"")] * CHECK_EVERY),
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


_VALID = [
    JPEG,
    GIF,
    encoded(Image.fromarray(PICTURE), "PNG"),
    webp(6, (b"EXIF", exif(6)), (b"XMP ", xmp(6))),
    encoded(Image.fromarray(PICTURE), "WEBP"),
    encoded(stored(6), "TIFF", tiffinfo={0x0112: 6}),
    with_segment(JPEG, segment(APP1, EXIF + exif(1)) + segment(APP1, XMP + xmp(1))),
]


@given(st.sampled_from(_VALID), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=20))
@example(JPEG, 0.0, 1.0, b"\xff\xd8\xff\xda")
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
