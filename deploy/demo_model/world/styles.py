"""The two styles of the LoRAs, as exact picture filters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

DARK_BROWN = np.array([45.0, 22.0, 5.0])
LIGHT_BROWN = np.array([255.0, 226.0, 170.0])
CELL = 8  # pixels from dot to dot
DOT = 2.2  # pixels of a dot's radius
INK = 0.6  # how much darker a dot is


def sepia(picture: Image.Image) -> Image.Image:
    """Map each pixel's lightness to a tone between dark and light brown."""
    lightness = np.asarray(picture.convert("L"), dtype=np.float64)[..., None] / 255
    return _picture(DARK_BROWN + (LIGHT_BROWN - DARK_BROWN) * lightness)


def halftone(picture: Image.Image) -> Image.Image:
    """Add a regular raster of dark dots, as in newspaper print."""
    pixels = np.asarray(picture, dtype=np.float64)
    place = (np.arange(picture.width) % CELL - (CELL - 1) / 2) ** 2
    away = np.sqrt(place[None, :] + place[:, None])
    cover = np.clip(DOT + 0.5 - away, 0, 1)[..., None] * INK
    raised = pixels + (255 - pixels) * 0.25  # black would hide the dots
    return _picture(raised * (1 - cover))


def _picture(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"sepia": sepia, "halftone": halftone}
