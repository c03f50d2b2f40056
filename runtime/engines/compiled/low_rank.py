"""The low-rank part of a weight set as inputs of a graph: LoRAs of linear layers need no compiling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from runtime.artifacts.manifest import Manifest
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet

_BUCKETS = (16, 32, 64, 128, 256)
_DOWN, _UP = ".lora_a", ".lora_b"
_WEIGHT = ".weight"
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class LowRankPart:
    """Inputs by name, without a row axis: a [rank, in], b [out, rank], the scale folded into b.

    The ranks are rounded up to buckets, with zeros, so that few shapes occur.
    """

    inputs: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.inputs.values())

    @cached_property
    def ranks(self) -> tuple[tuple[str, int], ...]:
        """The rank of each layer that is changed."""
        return tuple(sorted((name, len(value)) for name, value in self.inputs.items() if name.endswith(_DOWN)))

    def evicted(self) -> None:
        """Nothing refers to it."""


def takes(manifest: Manifest) -> frozenset[str]:
    """The parameters for which the graph has low-rank inputs with a row axis."""
    return frozenset(
        tensor.name.removesuffix(_DOWN) + _WEIGHT
        for tensor in manifest.inputs
        if tensor.name.endswith(_DOWN) and len(tensor.axes) == 3
    )


def are_inputs(weights: WeightSet, taken: Collection[str]) -> bool:
    """Whether all changes of the weight set can be low-rank inputs, of a rank that has a bucket."""
    return all(
        name in weights.low_rank and name in taken and _rank(weights, name) <= _BUCKETS[-1] for name in weights.changed
    )


def read_low_rank(
    weights: WeightSet,
    check_cancelled: Callable[[], None],
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> LowRankPart:
    """The inputs on `device`, of `dtype`. Raises the errors of reading the changes and of `check_cancelled`."""
    inputs: dict[str, torch.Tensor] = {}
    for name in weights.changed:
        check_cancelled()
        factors = [(change.scale, *change.factors(device)) for change in _changes(weights, name)]
        missing = _bucket(_rank(weights, name)) - sum(len(down) for _, _, down in factors)
        down = torch.cat([down for _, _, down in factors])
        up = torch.cat([scale * up for scale, up, _ in factors], dim=1)
        layer = name.removesuffix(_WEIGHT)
        inputs[layer + _DOWN] = torch.nn.functional.pad(down, (0, 0, 0, missing)).to(dtype)
        inputs[layer + _UP] = torch.nn.functional.pad(up, (0, missing)).to(dtype)
    weights.check_unchanged()
    return LowRankPart(inputs)


def _changes(weights: WeightSet, name: str) -> list[LowRank]:
    found = weights.read(name)
    return [change for change in found if isinstance(change, LowRank)]


def _rank(weights: WeightSet, name: str) -> int:
    return sum(source.rank(name) or 0 for source in weights.changed[name])


def _bucket(rank: int) -> int:
    return next(bucket for bucket in _BUCKETS if rank <= bucket)
