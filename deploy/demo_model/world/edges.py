"""Control pictures for the ControlNet: the edges of a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

STEP = 75.0  # in RGB, from one side of a pixel to the other: more than between the tones of a pattern


def edges(picture: Image.Image) -> Image.Image:
    """White lines, two pixels wide, on black, where colours of `picture` meet; RGB, of the same size."""
    pixels = np.pad(np.asarray(picture.convert("RGB"), dtype=np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    across = np.linalg.norm(pixels[1:-1, 2:] - pixels[1:-1, :-2], axis=2)
    down = np.linalg.norm(pixels[2:, 1:-1] - pixels[:-2, 1:-1], axis=2)
    lines = np.where(np.maximum(across, down) > STEP, 255, 0).astype(np.uint8)
    return Image.fromarray(lines).convert("RGB")
