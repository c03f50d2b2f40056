"""The jobs of the VAE's stages. A step is one engine call: for one picture, or for one tile of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator

import numpy as np
import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.plan import Plan
from runtime.stages.call import Array
from runtime.stages.vae.tile_grid import Blend, TileGrid
from runtime.window import Window

_LEAST_STD = math.exp(-15)  # of DiagonalGaussianDistribution; an engine in float16 may round it to 0


class VaeJob(ABC):
    """Processes each tile of `items` pictures, one after the other. It keeps the results, not the tiles."""

    def __init__(self, plan: Plan, bound: Bound | None, items: int) -> None:
        """The job releases its binding when it is closed. Without `items` it needs none."""
        _, _, height, width = plan.latents_shape
        self._grid = TileGrid(height, width, plan.vae_tile)
        self._bound = bound
        self._calls = [(item, window) for item in range(items) for window in self._grid.windows]
        self._steps_done = 0

    @property
    def steps_done(self) -> int:
        return self._steps_done

    @property
    def steps(self) -> int:
        return len(self._calls)

    @property
    def done(self) -> bool:
        return self._steps_done >= self.steps

    def step(self) -> Generator[list[Ask], list[Outputs], None]:
        """One tile: yields its ask, and takes the outputs."""
        assert self._bound is not None
        item, window = self._calls[self._steps_done]
        (outputs,) = yield [Ask(self._bound, self._inputs(item, window))]
        self._keep(item, window, outputs)
        self._steps_done += 1

    def close(self) -> None:
        """Release the binding. Called once."""
        if self._bound is not None:
            self._bound.release()

    @property
    @abstractmethod
    def outputs(self) -> dict[str, Array]:
        """The stage's outputs, once the job is done."""

    @abstractmethod
    def _inputs(self, item: int, window: Window) -> Inputs:
        """The network's inputs for a tile."""

    @abstractmethod
    def _keep(self, item: int, window: Window, outputs: Outputs) -> None:
        """Keep the network's outputs for a tile. The tiles of a picture come row by row."""


class EncodeJob(VaeJob):
    """`pixels` UINT8 [H, W, 3] -> LATENT_MEAN and LATENT_STD, each FP32 [1, 4, h, w]; [0, 4, h, w] without pixels."""

    def __init__(self, plan: Plan, bound: Bound | None, pixels: Array | None) -> None:
        items = 0 if pixels is None else 1
        super().__init__(plan, bound, items)
        self._scale = plan.checkpoint.vae_scale_factor
        self._pixels = None if pixels is None else _padded(pixels, plan)
        self._mean, self._std = (np.zeros((items, *plan.latents_shape[1:]), np.float32) for _ in range(2))
        self._blends = Blend(self._grid, 1), Blend(self._grid, 1)

    @property
    def outputs(self) -> dict[str, Array]:
        return {"LATENT_MEAN": self._mean, "LATENT_STD": self._std}

    def _inputs(self, item: int, window: Window) -> Inputs:
        assert self._pixels is not None
        return {"pixels": window.crop(self._pixels, self._scale).float() / 127.5 - 1.0}

    def _keep(self, item: int, window: Window, outputs: Outputs) -> None:
        mean, std = _cpu(outputs, "mean"), _cpu(outputs, "std")
        if self.steps > 1:
            # As in diffusers, the moments are blended: the mean and the logarithm of the variance.
            mean = self._blends[0].add(window, mean)
            std = self._blends[1].add(window, std.clamp_min(_LEAST_STD).log()).exp()
        for found, part in ((self._mean, mean), (self._std, std)):
            _put(found[item], window.top, window.left, part.numpy())


class DecodeJob(VaeJob):
    """`latents` FP32 [N, 4, h, w], divided by the scaling factor -> PIXELS UINT8 [N, height, width, 3]."""

    def __init__(self, plan: Plan, bound: Bound, latents: torch.Tensor) -> None:
        super().__init__(plan, bound, len(latents))
        self._scale = plan.checkpoint.vae_scale_factor
        self._latents = latents
        self._blends = [Blend(self._grid, self._scale) for _ in latents]
        self._pixels = np.zeros((len(latents), plan.height, plan.width, 3), np.uint8)

    @property
    def outputs(self) -> dict[str, Array]:
        return {"PIXELS": self._pixels}

    def _inputs(self, item: int, window: Window) -> Inputs:
        return {"latents": window.crop(self._latents[item])}

    def _keep(self, item: int, window: Window, outputs: Outputs) -> None:
        part = _to_pixels(self._blends[item].add(window, _cpu(outputs, "pixels")))
        top, left = self._scale * window.top, self._scale * window.left
        _put(self._pixels[item].transpose(2, 0, 1), top, left, part)


def _padded(pixels: Array, plan: Plan) -> torch.Tensor:
    """UINT8 [H, W, 3] -> UINT8 [3, padded H, padded W]. A copy: Triton frees its tensors with the request."""
    bottom, right = plan.padded_height - pixels.shape[0], plan.padded_width - pixels.shape[1]
    padded = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1)


def _to_pixels(picture: torch.Tensor) -> Array:
    """[3, H, W] around [-1, 1] -> UINT8 [3, H, W], rounded as diffusers does."""
    unit = (picture / 2 + 0.5).clamp(0, 1)
    return (unit.numpy() * 255).round().astype(np.uint8)


def _put(whole: Array, top: int, left: int, part: Array) -> None:
    """Write a part [C, h, w] into the whole [C, H, W]; what lies outside is cut off."""
    place = whole[:, top : top + part.shape[1], left : left + part.shape[2]]
    place[...] = part[:, : place.shape[1], : place.shape[2]]


def _cpu(outputs: Outputs, name: str) -> torch.Tensor:
    value = outputs[name]
    assert isinstance(value, torch.Tensor)
    return value.cpu()
