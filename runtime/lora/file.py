"""Reads what a LoRA file holds against a checkpoint, from its header alone: every key matched, every shape checked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.checkpoints.checkpoint import Component
from runtime.files.tensors import FLOATS, Header, TensorInfo, read_header
from runtime.lora.keys import Role, Target, split_key, targets

_LISTED = 8
_MAX_ALPHA = 1e30
_METADATA_KEY = "lora_adapter_metadata"  # diffusers' own record of PEFT's LoraConfig, one prefix a component


class LoraError(ValueError):
    """The file does not fit the checkpoint; the message lists what differs and is fit for the client."""


@dataclass(frozen=True)
class LoraLayer:
    """One layer's factors in the file: the names of `down` [rank, in, ...] and `up` [out, rank, ...].

    The layer's weight changes by scale * (alpha / rank) * up @ down. `alpha` is a tensor's name, or a number from
    the metadata, or None: alpha = rank.
    """

    target: Target
    down: str
    up: str
    rank: int
    alpha: str | float | None
    rank_stabilized: bool = False

    def multiplier(self, alpha: float | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA (arXiv 2312.03732)."""
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def read_lora(path: Path, components: Sequence[Component]) -> list[LoraLayer]:
    """The layers of a LoRA file for these components of a checkpoint.

    Raises WeightFileError for a file that cannot be read, and LoraError listing the keys that match nothing, or the
    shapes that differ.
    """
    header = read_header(path)
    parts, unmatched = _match(header, targets(components))
    if unmatched:
        raise LoraError(f"{len(unmatched)} of its {len(header.tensors)} keys match nothing: {_list(unmatched)}")
    if not parts:
        raise LoraError("it holds no tensors")
    config = _Config(header.metadata)
    shapes = {component.name: component.shapes for component in components}
    layers = [_layer(target, roles, header, config) for target, roles in parts.items()]
    problems = [
        problem
        for layer in layers
        if (problem := _misfit(layer, header, shapes[layer.target.component][layer.target.parameter]))
    ]
    if problems:
        raise LoraError(f"{len(problems)} of its layers do not fit this checkpoint: {_list(problems)}")
    return layers


def _match(header: Header, table: dict[str, Target]) -> tuple[dict[Target, dict[Role, str]], list[str]]:
    parts: dict[Target, dict[Role, str]] = {}
    unmatched = []
    for key in header.tensors:
        split = split_key(key)
        target = table.get(split[0]) if split else None
        if split is None or target is None or split[1] in parts.get(target, {}):
            unmatched.append(key)
        else:
            parts.setdefault(target, {})[split[1]] = key
    return parts, unmatched


def _layer(target: Target, roles: dict[Role, str], header: Header, config: _Config) -> LoraLayer:
    if "down" not in roles or "up" not in roles:
        raise LoraError(f"{next(iter(roles.values()))} has no counterpart")
    down = header.tensors[roles["down"]]
    rank = down.shape[0] if down.shape else 0
    alpha = roles.get("alpha") or config.alpha(target)
    return LoraLayer(target, roles["down"], roles["up"], rank, alpha, config.rank_stabilized(target))


def _misfit(layer: LoraLayer, header: Header, weight: tuple[int, ...]) -> str | None:
    """What is wrong with a layer's tensors, given its weight's shape [out, in, ...]; None when they fit."""
    down, up = header.tensors[layer.down], header.tensors[layer.up]
    wrong = [f"{name} is {info.dtype}" for name, info in _tensors(layer, header) if info.dtype not in FLOATS]
    if wrong:
        return wrong[0]
    if isinstance(layer.alpha, str) and math.prod(header.tensors[layer.alpha].shape) != 1:
        return f"{layer.alpha} is no single number"
    fits = (
        layer.rank > 0
        and len(up.shape) >= 2
        and up.shape[:2] == (weight[0], layer.rank)
        and math.prod(up.shape[2:]) == 1
        and _bare(down.shape[1:]) == _bare(weight[1:])
    )
    if fits:
        return None
    return f"{layer.target.component}.{layer.target.parameter} {list(weight)} by {list(up.shape)} @ {list(down.shape)}"


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its last ones: a 1x1 convolution and a linear layer are the same."""
    return _bare(shape[:-1]) if shape[-1:] == (1,) else shape


def _tensors(layer: LoraLayer, header: Header) -> list[tuple[str, TensorInfo]]:
    names = [layer.down, layer.up] + ([layer.alpha] if isinstance(layer.alpha, str) else [])
    return [(name, header.tensors[name]) for name in names]


def _list(items: list[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


@dataclass
class _Config:
    """The LoraConfig values that diffusers writes into a file's metadata, `unet.lora_alpha` and the like."""

    metadata: dict[str, str]
    values: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        text = self.metadata.get(_METADATA_KEY)
        try:
            self.values = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise LoraError(f"its metadata {_METADATA_KEY} is not JSON") from error
        if not isinstance(self.values, dict):
            raise LoraError(f"its metadata {_METADATA_KEY} is not a JSON object")

    def alpha(self, target: Target) -> float | None:
        """The layer's lora_alpha; a pattern names a layer by its module name or the end of it, as in PEFT."""
        patterns = self.values.get(f"{target.component}.alpha_pattern")
        for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
            if target.module == pattern or target.module.endswith(f".{pattern}"):
                return self._number(alpha)
        alpha = self.values.get(f"{target.component}.lora_alpha")
        return None if alpha is None else self._number(alpha)

    def rank_stabilized(self, target: Target) -> bool:
        return self.values.get(f"{target.component}.use_rslora") is True

    def _number(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_ALPHA:
            raise LoraError(f"its metadata {_METADATA_KEY} has a lora_alpha that is no number")
        return float(value)
