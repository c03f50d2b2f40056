"""Resizes pictures and aligns faces, as InsightFace does with OpenCV."""

from __future__ import annotations

import numpy as np

from runtime.faces.face import SIDE, Array, Pixels

# Where ArcFace (arXiv 1801.07698) has the five points, in pixels of a face of `SIDE` x `SIDE`.
_POINTS = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def align(pixels: Pixels, points: Array, side: int) -> Pixels:
    """The face with these points, turned, moved and scaled so that they are near ArcFace's: [side, side, 3].

    What is outside of the picture is black. Raises ValueError when all points are one.
    """
    turn, shift = _similarity(points, _POINTS * (side / SIDE))
    y, x = np.mgrid[:side, :side].astype(np.float64)
    places = (x + 1j * y - shift) / turn
    return _sample(np.pad(pixels, ((1, 1), (1, 1), (0, 0))), places.real + 1, places.imag + 1)


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """RGB pixels [H, W, 3] at another size, bilinear between the four nearest pixels, also where it shrinks."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    rows, columns = pixels.shape[:2]
    return _sample(pixels, (x + 0.5) * columns / width - 0.5, (y + 0.5) * rows / height - 0.5)


def _similarity(points: Array, targets: Array) -> tuple[complex, complex]:
    """`turn` and `shift` with the least squares of turn * point + shift - target, all of them complex numbers x + iy.

    This is Umeyama's similarity (1991) in the plane: a rotation, one scale and a move, no reflection.
    """
    source, target = (array[:, 0] + 1j * array[:, 1] for array in (points.astype(np.float64), targets))
    centred = source - source.mean()
    spread = float(np.vdot(centred, centred).real)
    turn = complex(np.vdot(centred, target - target.mean())) / spread if spread else 0j
    if not turn:
        raise ValueError("all points of the face are one")
    return turn, complex(target.mean() - turn * source.mean())


def _sample(pixels: Pixels, x: Array, y: Array) -> Pixels:
    """The pixels at these places, between the four nearest ones; places outside have the pixel of the edge."""
    height, width = pixels.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[..., None], (y - top)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    sampled: Pixels = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return sampled
