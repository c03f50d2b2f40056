"""MultiDiffusion (arXiv 2302.08113): the UNet sees a picture in windows that overlap. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.tile_plan import UNetTiles
from runtime.window import Window

if TYPE_CHECKING:
    import torch


def make_windows(height: int, width: int, tiles: UNetTiles | None) -> tuple[Window, ...]:
    """The windows of a picture of `height` x `width` latents, row by row. All have one size, and each lies inside.

    The last window of a row or column moves inside, closer to the one before it. Without tiles, the only window is the
    picture.
    """
    if tiles is None:
        return (Window(0, 0, height, width),)
    return tuple(
        Window(top, left, tiles.height, tiles.width)
        for top in _starts(height, tiles.height, tiles.stride_height)
        for left in _starts(width, tiles.width, tiles.stride_width)
    )


def average(predictions: Sequence[torch.Tensor], windows: Sequence[Window], like: torch.Tensor) -> torch.Tensor:
    """The mean of the windows' predictions [N, 4, h, w] at each place, as a picture of the shape of `like`.

    The only prediction of a single window is returned unchanged.
    """
    if len(windows) == 1:
        return predictions[0]
    total, count = like.new_zeros(like.shape), like.new_zeros(like.shape[-2:])
    for window, prediction in zip(windows, predictions, strict=True):
        window.crop(total).add_(prediction)
        window.crop(count).add_(1)
    return total / count


def _starts(side: int, tile: int, stride: int) -> list[int]:
    last = side - tile
    return [*range(0, last, stride), last]
