"""The low-rank part of a weight set as inputs of a graph, so that LoRAs need no compiling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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
    """Inputs by name, without a row axis: a [rank, in] or of a convolution [rank, taps, in], b [out, rank].

    The scale is folded into b. The ranks are rounded up to buckets, with zeros, so that few shapes occur.
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


def takes(manifest: Manifest, weights: WeightSet, most: int = _BUCKETS[-1]) -> bool:
    """Whether all changes of the weight set can be low-rank inputs of the graph, of a rank that has a bucket.

    most: the largest rank of an input.
    """
    taps = _taps(manifest)
    largest = max((bucket for bucket in _BUCKETS if bucket <= most), default=0)
    return all(
        name in weights.low_rank and name in taps and _rank(weights, name) <= largest for name in weights.changed
    )


def read_low_rank(
    manifest: Manifest,
    weights: WeightSet,
    check_cancelled: Callable[[], None],
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> LowRankPart:
    """The inputs of a graph that takes all changes, on `device`, of `dtype`.

    Raises the errors of reading the changes and of `check_cancelled`.
    """
    taps, inputs = _taps(manifest), dict[str, torch.Tensor]()
    for name in weights.changed:
        check_cancelled()
        down, up = _factors(weights, name, device)
        layer, count = name.removesuffix(_WEIGHT), taps[name]
        if count is not None:
            down = down.reshape(len(down), -1, count).transpose(1, 2).contiguous()
        inputs |= {layer + _DOWN: down.to(dtype), layer + _UP: up.to(dtype)}
    weights.check_unchanged()
    return LowRankPart(inputs)


def part_bytes(manifest: Manifest, weights: WeightSet, dtype: torch.dtype = torch.float32) -> int:
    """The size of the part that `read_low_rank` makes, from the headers of the files."""
    numbers = {
        tensor.name: math.prod(axis for axis in tensor.axes if isinstance(axis, int)) for tensor in manifest.inputs
    }
    layers = {name: name.removesuffix(_WEIGHT) for name in weights.changed}
    of_one_rank = {name: numbers[layer + _DOWN] + numbers[layer + _UP] for name, layer in layers.items()}
    return dtype.itemsize * sum(_bucket(_rank(weights, name)) * count for name, count in of_one_rank.items())


def _taps(manifest: Manifest) -> dict[str, int | None]:
    """Parameter -> the number of positions in its kernel, for those with low-rank inputs. None: a linear layer."""
    return {
        tensor.name.removesuffix(_DOWN) + _WEIGHT: int(tensor.axes[2]) if len(tensor.axes) == 4 else None
        for tensor in manifest.inputs
        if tensor.name.endswith(_DOWN)
    }


def _factors(weights: WeightSet, name: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """down [rank, in * taps] and up [out, rank] of all changes of a parameter, with zeros up to the rank's bucket."""
    changes = [change for change in weights.read(name) if isinstance(change, LowRank)]
    factors = [(change.scale, *change.factors(device)) for change in changes]
    down = torch.cat([down for _, _, down in factors])
    up = torch.cat([scale * up for scale, up, _ in factors], dim=1)
    missing = _bucket(len(down)) - len(down)
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))


def _rank(weights: WeightSet, name: str) -> int:
    return sum(source.rank(name) or 0 for source in weights.changed[name])


def _bucket(rank: int) -> int:
    return next(bucket for bucket in _BUCKETS if rank <= bucket)
