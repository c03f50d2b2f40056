"""The scale of an IP-Adapter in each cross-attention layer. Importing this needs no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lorikeet.protocol.shorten import shorten

_ATTENTION = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.|(mid)_block\.attentions\.0\.")
Place = tuple[str, int, int]  # "down", "mid" or "up", the number of the block, and the number of its attention layer


class ScaleError(ValueError):
    """The scales do not fit the UNet. The message is for the client."""


def layer_scales(scales: float | Mapping[str, Any], layers: Sequence[str]) -> tuple[float, ...]:
    """The scale of each cross-attention layer of a UNet, from `scale` or from diffusers' scales by block.

    layers: the layers' names, as `down_blocks.1.attentions.0.transformer_blocks.0.attn2`. As in
    `set_ip_adapter_scale`, what a mapping does not name has scale 0. Raises ScaleError.
    """
    if not isinstance(scales, Mapping):
        return (float(scales),) * len(layers)
    places = [_place(name) for name in layers]
    sizes = {side: _sizes(side, places) for side in ("down", "mid", "up")}
    if unknown := set(scales) - set(sizes):
        raise ScaleError(f"{min(unknown)!r} is no part of a UNet: expected down, mid or up")
    found = {side: _side_scales(side, scales.get(side, 0.0), sizes[side]) for side in sizes}
    return tuple(found[side][block][layer] for side, block, layer in places)


def _place(name: str) -> Place:
    match = _ATTENTION.match(name)
    if match is None:  # the names are those of the client's file
        raise ScaleError(
            f"the UNet's {shorten(name, 100)} has no scale by block: give one scale in place of scale_json"
        )
    return ("mid", 0, 0) if match[4] else (match[1], int(match[2]), int(match[3]))


def _sizes(side: str, places: Sequence[Place]) -> dict[int, int]:
    """The number of attention layers of each block that has some."""
    layers = {(block, layer) for found, block, layer in places if found == side}
    return dict(sorted(Counter(block for block, _ in layers).items()))


def _side_scales(side: str, value: Any, sizes: Mapping[int, int]) -> dict[int, list[float]]:
    if side == "mid" or not isinstance(value, Mapping):
        return {block: _block_scales(side, value, size) for block, size in sizes.items()}
    names = {f"block_{block}": block for block in sizes}
    if unknown := set(value) - set(names):
        raise ScaleError(f"the UNet has no attention in {side}.{min(unknown)}: expected {' or '.join(names)}")
    return {block: _block_scales(f"{side}.{name}", value.get(name, 0.0), sizes[block]) for name, block in names.items()}


def _block_scales(place: str, value: Any, size: int) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
        raise ScaleError(f"{place} must be a number or a list of numbers")
    if len(values) not in (1, size):
        raise ScaleError(f"{place} has {len(values)} scales: expected one, or {size}, one for each attention layer")
    return [float(one) for one in values] * (size if len(values) == 1 else 1)
