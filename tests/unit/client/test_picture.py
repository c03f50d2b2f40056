"""A PIL image is sent as viewers show it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lorikeet import InvalidRequest
from lorikeet.client.picture import encode

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 3), np.uint8)


def _sent(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encode(image)))


def test_an_image_is_upright_as_the_same_file_is() -> None:
    image, buffer = Image.fromarray(PIXELS), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: 90 degrees clockwise
    image.save(buffer, "PNG", exif=exif)
    sent = _sent(Image.open(buffer))
    assert np.array_equal(np.asarray(sent), np.rot90(PIXELS, -1))
    assert not sent.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_the_modes_of_png_are_sent_as_they_are(mode: str) -> None:
    image = Image.new(mode, (8, 4), 1)
    sent = _sent(image)
    assert (sent.mode, sent.tobytes()) == (mode, image.tobytes())


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "PA"])
def test_other_modes_have_the_same_colours(mode: str) -> None:
    image = Image.new(mode, (8, 4))
    image.info["icc_profile"] = b"of the mode"
    wanted = "RGBA" if mode in ("RGBa", "La", "PA") else "RGB"
    sent = _sent(image)
    assert np.array_equal(np.asarray(sent.convert(wanted)), np.asarray(image.convert(sent.mode).convert(wanted)))
    assert "icc_profile" not in sent.info


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(InvalidRequest, match=f"mode {mode}: convert it to RGB"):
        encode(Image.new(mode, (8, 4)))


def test_a_damaged_file_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    with pytest.raises(InvalidRequest, match="cannot read a PIL image: "):
        encode(Image.open(io.BytesIO(buffer.getvalue()[:400])))
