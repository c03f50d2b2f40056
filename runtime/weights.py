"""Weight sets: what one request's network is, as data.

A weight set names a base (a component of a checkpoint) and says how it differs: tensors replaced in `full`, products
of low rank added in `low_rank`. What an engine binds is always computed from the base, W + sum(scale * B @ A), never
added to or subtracted from what was bound before: nothing of one set can be left in the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from safetensors import safe_open

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.names import canonical_name


@dataclass(frozen=True)
class LowRank:
    """A change of a weight [out, in, ...] by `scale * up @ down`: down [rank, in, ...], up [out, rank, ...]."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def delta(self, shape: torch.Size, device: torch.device | None = None) -> torch.Tensor:
        """The change, float32, in the weight's shape. (A convolution is the product of its flattened factors.)"""
        up, down = (factor.flatten(1).to(device, torch.float32) for factor in (self.up, self.down))
        return self.scale * (up @ down).reshape(shape)


@dataclass(frozen=True)
class WeightSet:
    """A base component and its changes; `digest` names the result, equal for equal weights from equal files."""

    base: Component
    changes: str = ""
    full: Mapping[str, torch.Tensor] = field(default_factory=dict)
    low_rank: Mapping[str, Sequence[LowRank]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.base.digest}:{self.changes}".encode()).hexdigest()

    @property
    def changed(self) -> set[str]:
        """The names of the parameters that differ from the base."""
        return {*self.full, *self.low_rank}

    def merged(self, name: str, base: torch.Tensor) -> torch.Tensor:
        """A changed parameter, float32: its full replacement or its base, plus its low-rank changes in their order."""
        weight = self.full.get(name, base).to(base.device, torch.float32)
        for change in self.low_rank.get(name, ()):
            weight = weight + change.delta(weight.shape, weight.device)
        return weight


def base_tensors(component: Component) -> Iterator[tuple[str, torch.Tensor]]:
    """(canonical name, tensor) of a component's files; mapped from the file, not copied."""
    for weight_file in component.files:
        with safe_open(weight_file.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                canonical = canonical_name(component.name, name)
                if canonical is not None:
                    yield canonical, file.get_tensor(name)
