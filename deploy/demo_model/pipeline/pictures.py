"""Pictures as tensors, and tensors as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def to_pixels(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """[n, 3, H, W] in [-1, 1], channels last in memory."""
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """The pictures of [n, 3, H, W] around [-1, 1]."""
    bytes_ = ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in bytes_]


def save_grid(pictures: Sequence[Image.Image], columns: int, path: Path) -> None:
    """Write `pictures` of one size as one PNG, row by row."""
    width, height = pictures[0].size
    grid = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % columns * width, index // columns * height))
    grid.save(path)
