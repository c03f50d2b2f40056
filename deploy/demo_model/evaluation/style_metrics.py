"""The measuring stick for styles: one number each that is large where a picture has the style."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from deploy.demo_model.world.styles import CELL, sepia

# Between what drawn pictures show with and without the style; see the unit tests.
THRESHOLDS = {"sepia": 0.55, "halftone": 0.4}
PLAIN_DISTANCE = 60.0  # in RGB, from brown: about the least that a coloured picture has
FULL_RASTER = 0.11  # the raster's wave in a drawn halftone, as a part of its lightness


def sepia_degree(picture: Image.Image) -> float:
    """1 where every pixel is the brown of its lightness, 0 or less where they are as far from it as colours are."""
    away = np.asarray(picture, dtype=np.float64) - np.asarray(sepia(picture), dtype=np.float64)
    hue = away - away.mean(axis=2, keepdims=True)  # the lightness may differ, the hue not
    return 1 - float(np.linalg.norm(hue, axis=2).mean()) / PLAIN_DISTANCE


def halftone_degree(picture: Image.Image) -> float:
    """1 where the raster's waves, across and down, are as strong as in a drawn halftone; 0 where there are none."""
    lightness = np.asarray(picture.convert("L"), dtype=np.float64)
    waves = np.abs(np.fft.fft2(lightness))
    across, down = waves[0, picture.width // CELL], waves[picture.height // CELL, 0]
    return float(min(across, down) / waves[0, 0]) / FULL_RASTER


DEGREES: dict[str, Callable[[Image.Image], float]] = {"sepia": sepia_degree, "halftone": halftone_degree}


def has_style(picture: Image.Image, style: str) -> bool:
    """Whether `picture` has `style`."""
    return DEGREES[style](picture) > THRESHOLDS[style]
