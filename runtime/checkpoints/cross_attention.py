"""The cross-attention layers of a UNet, in the order in which an IP-Adapter counts them. No torch."""

from __future__ import annotations

import re
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component

_KEYS = ".attn2.to_k.weight"
_NUMBER = re.compile(r"\d+")
_SIDES = ("down_blocks", "up_blocks", "mid_block")  # as diffusers registers them


class CrossAttention(NamedTuple):
    """A layer's name in the UNet, and the inner width of its keys and values."""

    name: str
    width: int


def cross_attentions(unet: Component) -> tuple[CrossAttention, ...]:
    """All cross-attention layers, in module order. Raises WeightFileError."""
    found = [
        CrossAttention(name.removesuffix(".to_k.weight"), shape[0])
        for name, shape in unet.shapes.items()
        if name.endswith(_KEYS) and shape
    ]
    return tuple(sorted(found, key=lambda layer: _order(layer.name)))


def _order(name: str) -> tuple[int, ...]:
    side = name.partition(".")[0]
    return (_SIDES.index(side), *map(int, _NUMBER.findall(name.removeprefix(side))))
