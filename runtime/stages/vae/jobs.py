"""The jobs of the VAE's stages. A step is one engine call: for one picture, or for one tile of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence

import numpy as np
import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.plan import Plan
from runtime.stages.call import Array
from runtime.stages.vae.safety_check import SafetyCheck
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
        self._calls: list[tuple[int, Window | None]] = [
            (item, window) for item in range(items) for window in self._grid.windows
        ]
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
        item, window = self._calls[self._steps_done]
        if window is None:
            yield from self._finish(item)
        else:
            assert self._bound is not None
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

    def _finish(self, item: int) -> Generator[list[Ask], list[Outputs], None]:
        """What follows the tiles of a picture; it has a place in `_calls` of its own, without a window."""
        yield from ()

    @abstractmethod
    def _inputs(self, item: int, window: Window) -> Inputs:
        """The network's inputs for a tile."""

    @abstractmethod
    def _keep(self, item: int, window: Window, outputs: Outputs) -> None:
        """Keep the network's outputs for a tile. The tiles of a picture come row by row."""


class EncodeJob(VaeJob):
    """Pictures UINT8 [H, W, 3] -> LATENT_MEAN and LATENT_STD, each FP32 [1, 4, h, w], and CONCAT FP32 [C, h, w].

    The first picture is the init image if there is one; without one, both have no rows. CONCAT has the scaled means of
    the other pictures, which are IC-Light's.
    """

    def __init__(self, plan: Plan, bound: Bound | None, pictures: Sequence[Array]) -> None:
        super().__init__(plan, bound, len(pictures))
        self._scale, self._factor = plan.checkpoint.vae_scale_factor, plan.checkpoint.scaling_factor
        self._init = int(plan.has_image)  # init images among the pictures
        self._pictures = [_padded(pixels, plan) for pixels in pictures]
        self._mean, self._std = (np.zeros((len(pictures), *plan.latents_shape[1:]), np.float32) for _ in range(2))
        self._blends = [(Blend(self._grid, 1), Blend(self._grid, 1)) for _ in pictures]

    @property
    def outputs(self) -> dict[str, Array]:
        others = self._mean[self._init :] * np.float32(self._factor)
        return {
            "LATENT_MEAN": self._mean[: self._init],
            "LATENT_STD": self._std[: self._init],
            "CONCAT": others.reshape(-1, *others.shape[2:]),
        }

    def _inputs(self, item: int, window: Window) -> Inputs:
        return {"pixels": window.crop(self._pictures[item], self._scale).float() / 127.5 - 1.0}

    def _keep(self, item: int, window: Window, outputs: Outputs) -> None:
        mean, std = _cpu(outputs, "mean"), _cpu(outputs, "std")
        if len(self._grid.windows) > 1:
            # As in diffusers, the moments are blended: the mean and the logarithm of the variance.
            blends = self._blends[item]
            mean = blends[0].add(window, mean)
            std = blends[1].add(window, std.clamp_min(_LEAST_STD).log()).exp()
        for found, part in ((self._mean, mean), (self._std, std)):
            _put(found[item], window.top, window.left, part.numpy())


class DecodeJob(VaeJob):
    """`latents` FP32 [N, 4, h, w], divided by the scaling factor -> PIXELS UINT8 [N, height, width, 3].

    With a `checker`, each picture is checked when it is done. A flagged one is black.
    """

    def __init__(self, plan: Plan, bound: Bound, latents: torch.Tensor, checker: SafetyCheck | None = None) -> None:
        super().__init__(plan, bound, len(latents))
        self._checker = checker
        self.flagged = [False] * len(latents)
        if checker is not None:
            self._calls = [(item, window) for item in range(len(latents)) for window in (*self._grid.windows, None)]
        self._scale = plan.checkpoint.vae_scale_factor
        self._latents = latents
        self._blends = [Blend(self._grid, self._scale) for _ in latents]
        self._pixels = np.zeros((len(latents), plan.height, plan.width, 3), np.uint8)

    @property
    def outputs(self) -> dict[str, Array]:
        return {"PIXELS": self._pixels}

    def close(self) -> None:
        super().close()
        if self._checker is not None:
            self._checker.bound.release()

    def _finish(self, item: int) -> Generator[list[Ask], list[Outputs], None]:
        assert self._checker is not None
        self.flagged[item] = yield from self._checker.is_unsafe(self._pixels[item])
        if self.flagged[item]:
            self._pixels[item] = 0

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
