"""The square picture that CLIP sees: as its image processor makes it, without the rest of an elongated picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.files.image_codec import Pixels, resize

_LONG = 4  # times its shorter side: of a longer picture, only the middle is resized
_SUPPORT = 2.0  # of the bicubic filter, in pixels
_BITS = 22  # of Pillow's fixed-point coefficients

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def crop_square(pixels: Pixels, side: int) -> Pixels:
    """As CLIP's image processor: the shortest side resized to `side` with bicubic interpolation, then the middle.

    RGB pixels [H, W, 3] -> [side, side, 3].
    """
    height, width = pixels.shape[:2]
    longer = int(side * max(height, width) / min(height, width))
    if longer > _LONG * side:
        return _crop_elongated(pixels, side, longer)
    new_height, new_width = (side, longer) if height <= width else (longer, side)
    resized = resize(pixels, new_width, new_height, Image.Resampling.BICUBIC)
    top, left = (new_height - side) // 2, (new_width - side) // 2
    return np.ascontiguousarray(resized[top : top + side, left : left + side])


def _crop_elongated(pixels: Pixels, side: int, longer: int) -> Pixels:
    """The same bytes at a cost that does not grow with the longer side.

    Pillow's own resize of a part (`box`) has float32 coordinates, which change some bytes. The order of the two passes
    is Pillow's: the vertical one is the first one for a tall picture that gets smaller.
    """
    height, width = pixels.shape[:2]
    taps, coefficients = _middle(max(height, width), longer, side)
    first, last = int(taps.min()), int(taps.max()) + 1
    taps = taps - first
    if width > height:
        middle = _weighted_sums(pixels[:, first:last].swapaxes(0, 1), taps, coefficients).swapaxes(0, 1)
    elif width > side:
        middle = _weighted_sums(pixels[first:last], taps, coefficients)
    else:
        strip = resize(pixels[first:last], side, last - first, Image.Resampling.BICUBIC)
        return _weighted_sums(strip, taps, coefficients)
    return resize(middle, side, side, Image.Resampling.BICUBIC)


def _middle(length: int, new_length: int, side: int) -> tuple[Integers, Integers]:
    """For the `side` pixels in the middle of `new_length`: the places of the source's pixels, and their coefficients.

    Both are [side, taps]. This is `precompute_coeffs` of Pillow's Resample.c.
    """
    scale = length / new_length
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    centers = (np.arange(side) + (new_length - side) // 2 + 0.5) * scale
    begins, ends = ((centers + sign * support + 0.5).astype(np.int64).clip(0, length) for sign in (-1, 1))
    places = begins[:, None] + np.arange((ends - begins).max())
    weights = _bicubic((places - centers[:, None] + 0.5) / stretch) * (places < ends[:, None])
    coefficients = weights / weights.sum(axis=1, keepdims=True) * (1 << _BITS)
    return places.clip(0, length - 1), np.trunc(coefficients + np.copysign(0.5, coefficients)).astype(np.int64)


def _bicubic(distances: Floats) -> Floats:
    """The cubic convolution filter with a = -1/2."""
    x = np.abs(distances)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _weighted_sums(pixels: Pixels, taps: Integers, coefficients: Integers) -> Pixels:
    """Pixels [L, S, 3] -> [side, S, 3]: each the weighted sum of the pixels along the first axis that `taps` names."""
    sums = np.full((len(taps), *pixels.shape[1:]), 1 << (_BITS - 1), np.int32)
    for places, factors in zip(taps.T, coefficients.T, strict=True):
        sums += pixels[places] * factors[:, None, None].astype(np.int32)
    return (sums >> _BITS).clip(0, 255).astype(np.uint8)
