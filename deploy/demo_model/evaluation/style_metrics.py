"""Style metrics: a degree for each style, about 0 without it and about 1 with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from deploy.demo_model.world.styles import CELL, sepia

# They separate drawn pictures with and without the style; see the unit tests.
THRESHOLDS = {"sepia": 0.55, "halftone": 0.4}
PLAIN_DISTANCE = 60.0  # mean RGB distance from brown of the least colourful drawn pictures
FULL_RASTER = 0.11  # amplitude of the raster's frequency in a drawn halftone, relative to the mean lightness


def sepia_degree(picture: Image.Image) -> float:
    """1 if every pixel has the sepia hue; 0 or less if the mean hue distance is that of a coloured picture."""
    away = np.asarray(picture, dtype=np.float64) - np.asarray(sepia(picture), dtype=np.float64)
    hue = away - away.mean(axis=2, keepdims=True)  # the lightness may differ, the hue not
    return 1 - float(np.linalg.norm(hue, axis=2).mean()) / PLAIN_DISTANCE


def halftone_degree(picture: Image.Image) -> float:
    """1 if the raster's frequency is as strong as in a drawn halftone, in both directions; 0 if it is absent."""
    lightness = np.asarray(picture.convert("L"), dtype=np.float64)
    waves = np.abs(np.fft.fft2(lightness))
    across, down = waves[0, picture.width // CELL], waves[picture.height // CELL, 0]
    return float(min(across, down) / waves[0, 0]) / FULL_RASTER


DEGREES: dict[str, Callable[[Image.Image], float]] = {"sepia": sepia_degree, "halftone": halftone_degree}


def has_style(picture: Image.Image, style: str) -> bool:
    """Whether the degree of `style` in `picture` is above its threshold."""
    return DEGREES[style](picture) > THRESHOLDS[style]
