"""Rows of every kind that a full-size UNet can get, with random content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.gpu.models import GUIDANCE_WIDTH
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.ip_masks import PictureMasks
from runtime.engines.engine import Field, Inputs
from runtime.networks.architecture import Architecture
from runtime.networks.build import build
from runtime.window import Window

_TOKENS = 77
_ADAPTERS, _IMAGE_TOKENS = 2, 4
_WEAK = 0.1  # the spread of what a further network would add


class Rows:
    """Makes rows for one checkpoint's UNet. Each call draws new content."""

    def __init__(self, checkpoint: Checkpoint, pixels: int, device: torch.device, seed: int) -> None:
        self._config = checkpoint.unet.config
        self._is_sdxl = checkpoint.kind == "sdxl"
        self._side = pixels // checkpoint.vae_scale_factor
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    def plain(self) -> dict[str, Field]:
        """The fields that every row has."""
        fields: dict[str, Field] = {
            "latent": self._noise(4, self._side, self._side),
            "t": torch.tensor(501.0),
            "text": self._noise(_TOKENS, int(self._config["cross_attention_dim"])),
        }
        if self._is_sdxl:
            size = float(self._side * 8)
            fields |= {"pooled": self._noise(1280), "time_ids": torch.tensor([size, size, 0.0, 0.0, size, size])}
        return fields

    def with_residuals(self) -> Inputs:
        """A row with a ControlNet's residuals."""
        channels, side = list(self._config["block_out_channels"]), self._side
        shapes = [(channels[0], side)]
        for level, width in enumerate(channels):
            shapes += [(width, side)] * int(self._config["layers_per_block"])
            if level < len(channels) - 1:
                side //= 2
                shapes.append((width, side))
        shapes.append((channels[-1], side))  # the middle block
        residuals = tuple(self._noise(width, size, size) * _WEAK for width, size in shapes)
        return self.plain() | {"residuals": residuals}

    def with_image_prompts(self, architecture: Architecture) -> Inputs:
        """A row with two IP-Adapters, the second one masked."""
        network: Any = build(architecture)
        width = network.image_prompts.width
        mask = torch.ones(1, self._side, self._side, dtype=torch.bool)
        mask[:, :, : self._side // 2] = False
        window = Window(0, 0, self._side, self._side)
        masks = PictureMasks(mask, torch.tensor([-1, 0])).resize(window, 1, self._config).to(self._device)
        return self.plain() | {
            "ip_k": self._noise(_ADAPTERS, _IMAGE_TOKENS, width),
            "ip_v": self._noise(_ADAPTERS, _IMAGE_TOKENS, width) * _WEAK,
            "ip_bias": torch.zeros(_ADAPTERS, _IMAGE_TOKENS, device=self._device),
            "ip_masks": masks.masks,
            "ip_mask_index": masks.index,
        }

    def with_picture(self) -> Inputs:
        """A row of a UNet with 8 input channels (IC-Light)."""
        return self.plain() | {"concat": self._noise(4, self._side, self._side)}

    def with_guidance(self) -> Inputs:
        """A row of a UNet that was distilled with guidance (LCM)."""
        return self.plain() | {"timestep_cond": self._noise(GUIDANCE_WIDTH)}

    def _noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=self._device)


def batched(rows: list[Mapping[str, Field]]) -> dict[str, torch.Tensor]:
    """The plain fields of rows, stacked."""
    names = ("latent", "t", "text", "pooled", "time_ids")
    found = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        if tensors:
            found[name] = torch.stack(tensors)
    return found
