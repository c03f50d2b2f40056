"""Where the IP-Adapters of a request act. Their masks are resized once for a job, not in each call of the UNet.

There is one mask for each adapter that has one, however many pictures the adapter has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.image_processor import IPAdapterMaskProcessor

from runtime.networks.architecture import architecture_of
from runtime.networks.level_size import level_size
from runtime.window import Window


@dataclass(frozen=True, eq=False)
class LevelMasks:
    """masks: [masks, queries] for each resolution level of the UNet. index [adapters]: the mask of each one."""

    masks: tuple[torch.Tensor, ...]
    index: torch.Tensor

    def to(self, device: torch.device) -> LevelMasks:
        return LevelMasks(tuple(mask.to(device) for mask in self.masks), self.index.to(device))


@dataclass(frozen=True, eq=False)
class PictureMasks:
    """pixels [masks, H, W], bool. index [adapters]: the mask of each adapter; -1 for one that acts everywhere."""

    pixels: torch.Tensor
    index: torch.Tensor

    def resize(self, window: Window, pixels_per_latent: int, unet_config: Mapping[str, Any]) -> LevelMasks:
        """The masks of a window. The last one is of ones; adapters that act everywhere have it.

        diffusers gives those adapters no mask. A resized mask of ones would end early in a narrow picture.
        """
        options = architecture_of("unet", unet_config).options
        padding = options["downsample_padding"]
        cropped = window.crop(self.pixels, pixels_per_latent)
        levels = []
        for level in range(len(options["block_out_channels"])):
            queries = level_size(window.height, level, padding) * level_size(window.width, level, padding)
            # One mask at a time: as float32 it has four times the size.
            resized = [_resize(mask, queries) for mask in cropped]
            levels.append(torch.stack([*resized, torch.ones(queries)]))
        return LevelMasks(tuple(levels), self.index.remainder(len(cropped) + 1))


def _resize(mask: torch.Tensor, queries: int) -> torch.Tensor:
    """The mask [H, W] at a resolution of `queries` places, as diffusers resizes it."""
    height, width = mask.shape
    if queries * height < width:  # where diffusers finds less than one row, and divides by zero
        return torch.nn.functional.interpolate(mask[None, None].float(), (1, queries), mode="bicubic").flatten()
    resized: torch.Tensor = IPAdapterMaskProcessor.downsample(mask[None].float(), 1, queries, 1)
    return resized.flatten()
