"""IP-Adapter masks, resized once a call: one for each resolution level at which a UNet has cross-attention.

Level 0 is the latents' size. Each further level halves it.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from diffusers.image_processor import IPAdapterMaskProcessor

from runtime.networks.level_size import level_size


def resize_masks(
    mask: torch.Tensor, size: tuple[int, int], levels: Collection[int], downsample_padding: int
) -> dict[int, torch.Tensor]:
    """Level -> masks [rows, adapters, queries], each resized from the picture's mask as diffusers does.

    mask: [rows, adapters, H, W], of any size with the picture's aspect ratio. size: height and width of the latents.
    """
    rows, adapters = mask.shape[:2]
    height, width = size
    resized = {}
    for level in levels:
        queries = level_size(height, level, downsample_padding) * level_size(width, level, downsample_padding)
        small = IPAdapterMaskProcessor.downsample(mask.flatten(0, 1), 1, queries, 1)
        resized[level] = small.reshape(rows, adapters, queries)
    return resized
