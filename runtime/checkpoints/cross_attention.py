"""The cross-attention layers of a UNet, in the order in which an IP-Adapter counts them. No torch."""

from __future__ import annotations

from typing import NamedTuple

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.module_order import module_order

_KEYS = ".attn2.to_k.weight"


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
    return tuple(sorted(found, key=lambda layer: module_order(layer.name)))
