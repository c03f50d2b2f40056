"""The tiles of a picture for the VAE, as AutoencoderKL's `tiled_encode` and `tiled_decode` make and blend them."""

from __future__ import annotations

import torch

from runtime.tile_plan import VaeTile
from runtime.window import Window

_OVERLAP = 4  # neighbouring tiles overlap by one part in so many: diffusers' tile_overlap_factor of 0.25


class TileGrid:
    """The tiles of a picture of `height` x `width` latents, row by row; without `tile`, the whole picture is one.

    Each tile begins three quarters of a tile after the one before it, and the picture's edge may cut it.
    """

    def __init__(self, height: int, width: int, tile: VaeTile | None) -> None:
        tile_height, tile_width = (tile.height, tile.width) if tile else (height, width)
        self.overlap_height, self.overlap_width = (tile_height // _OVERLAP, tile_width // _OVERLAP) if tile else (0, 0)
        self.stride_height, self.stride_width = tile_height - self.overlap_height, tile_width - self.overlap_width
        self.windows = tuple(
            Window(top, left, min(tile_height, height - top), min(tile_width, width - left))
            for top in range(0, height, self.stride_height)
            for left in range(0, width, self.stride_width)
        )


class Blend:
    """Blends the tiles of one picture, which come row by row. It keeps only the edges that later tiles need.

    `unit`: places of the tiles' values for each latent.
    """

    def __init__(self, grid: TileGrid, unit: int) -> None:
        self._grid, self._unit = grid, unit
        self._above: dict[int, torch.Tensor] = {}  # the lower edges of the tiles of the row above, by their left
        self._before: torch.Tensor | None = None  # the right edge of the last tile

    def add(self, window: Window, values: torch.Tensor) -> torch.Tensor:
        """The finished part of a tile `values` [C, h, w]: the part up to where the tiles below and after it begin.

        Its first rows and columns fade in linearly, from the tile above, then from the one before it.
        """
        grid = self._grid
        if window.top:
            values = _fade(self._above[window.left], values, dim=1)
        if window.left and self._before is not None:
            values = _fade(self._before, values, dim=2)
        self._above[window.left] = _last(values, self._unit * grid.overlap_height, dim=1)
        self._before = _last(values, self._unit * grid.overlap_width, dim=2)
        return values[:, : self._unit * grid.stride_height, : self._unit * grid.stride_width]


def _last(values: torch.Tensor, count: int, dim: int) -> torch.Tensor:
    """A copy of the last places along an axis: a view would keep the whole tile in memory."""
    count = min(count, values.shape[dim])
    return values.narrow(dim, values.shape[dim] - count, count).clone()


def _fade(before: torch.Tensor, values: torch.Tensor, dim: int) -> torch.Tensor:
    """`values`, whose first places along an axis turn from the last ones of `before` into its own."""
    count = min(before.shape[dim], values.shape[dim])
    weights = (torch.arange(count, dtype=torch.float64) / count).reshape(
        [-1 if axis == dim else 1 for axis in range(3)]
    )
    first = _last(before, count, dim) * (1 - weights).float() + values.narrow(dim, 0, count) * weights.float()
    return torch.cat([first, values.narrow(dim, count, values.shape[dim] - count)], dim)
