"""The square that CLIP sees of a picture, compared with transformers' image processor."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from runtime.files.crop_square import crop_square
from runtime.files.image_codec import Pixels
from tests.unit.runtime.cpu_time import least_cpu_seconds

SIZES = [(64, 64), (200, 333), (333, 200), (300, 64), (64, 1000), (1000, 64), (71, 2003), (2003, 71), (331, 1999)]


def picture(height: int, width: int) -> Pixels:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [1, 30, 224, 336])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_square_is_that_of_transformers(height: int, width: int, side: int) -> None:
    pixels = picture(height, width)
    processor = CLIPImageProcessorPil(size=side, crop_size=side, do_rescale=False, do_normalize=False)
    (expected,) = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    assert np.array_equal(crop_square(pixels, side), expected.transpose(1, 2, 0))


@pytest.mark.parametrize(("height", "width"), [(64, 65536), (65536, 64)])
def test_the_cost_does_not_grow_with_the_longer_side(height: int, width: int) -> None:
    """The whole picture at the square's scale has 51 million pixels."""
    pixels, side = picture(height, width), 224
    tracemalloc.start()
    crop_square(pixels, side)
    assert tracemalloc.get_traced_memory()[1] < 20 * 3 * side**2
    tracemalloc.stop()
    assert least_cpu_seconds(lambda: crop_square(pixels, side)) < 0.1
