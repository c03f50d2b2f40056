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
        up, down = self.factors(base.device)
        return (self.scale * up @ down).reshape(base.shape)

    def factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """`up` [out, rank] and `down` [rank, in], float32: a convolution is the product of its flattened factors."""
        return self.up.flatten(1).to(device).float(), self.down.flatten(1).to(device).float()
