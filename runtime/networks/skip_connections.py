"""The skip connections of a UNet, which its ControlNets add to. Importing this needs neither torch nor diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.networks.level_size import level_size


def skip_connections(widths: Sequence[int], layers: Sequence[int]) -> list[tuple[int, int]]:
    """Channels and level of each skip connection, then of the middle block. layers: ResNet layers of each level."""
    skips = [(widths[0], 0)]
    for level, (width, count) in enumerate(zip(widths, layers, strict=False)):
        skips += [(width, level)] * count
        if level < len(widths) - 1:
            skips.append((width, level + 1))
    return [*skips, (widths[-1], len(widths) - 1)]


def skip_sizes(options: Mapping[str, Any], height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of each, for latents of this size. options: of the UNet's architecture."""
    padding = options["downsample_padding"]
    return [
        (level_size(height, level, padding), level_size(width, level, padding))
        for _, level in skip_connections(options["block_out_channels"], options["layers_per_block"])
    ]
