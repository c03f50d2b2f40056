"""Weight sets with changes made by hand, and as an engine merges them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from runtime.weights.change import Change, LowRank
from runtime.weights.merge import merge
from runtime.weights.weight_set import WeightSet


@dataclass(frozen=True)
class Replacement:
    """The change that makes a weight the given one, which may have more input channels."""

    value: torch.Tensor

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        change = self.value.clone()
        change[tuple(slice(0, size) for size in base.shape)] -= base
        return change


@dataclass(frozen=True, eq=False)
class Changes:
    """A ChangeSource of changes that are in memory."""

    digest: str
    changes: Mapping[str, Change]

    @property
    def names(self) -> Collection[str]:
        return self.changes.keys()

    def rank(self, name: str) -> int | None:
        change = self.changes[name]
        return len(change.down) if isinstance(change, LowRank) else None

    def shape(self, name: str) -> torch.Size:
        change = self.changes[name]
        if isinstance(change, LowRank):
            return torch.Size([len(change.up), *change.down.shape[1:]])
        assert isinstance(change, Replacement)
        return change.value.shape

    def read(self, name: str) -> Change:
        return self.changes[name]

    def check_unchanged(self) -> None:
        """Memory does not change."""


def merged(weights: WeightSet, name: str, base: torch.Tensor) -> torch.Tensor:
    """A parameter with its changes, float32."""
    out = torch.empty(base.shape, dtype=torch.float32)
    merge(base, weights.read(name), out)
    return out
