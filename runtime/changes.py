"""Changes of a weight: what a LoRA, of whatever kind, adds to it. Importing this takes no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Change(Protocol):
    """What is added to a weight, as a function of that weight."""

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """The change of `base` (float32, never altered): a new tensor, float32, of its shape, on its device."""


@dataclass(frozen=True)
class LowRank:
    """A change of a weight [out, in, ...] by `scale * up @ down`: down [rank, in, ...], up [out, rank, ...]."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """(A convolution is the product of its flattened factors.)"""
        up, down = (factor.flatten(1).to(base) for factor in (self.up, self.down))
        return ((self.scale * up) @ down).reshape(base.shape)
