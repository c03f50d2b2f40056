"""Changes of a weight: what a LoRA of any kind adds to it. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Change(Protocol):
    """A term that is added to a weight. It is a function of that weight."""

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        """The change of `base` (float32, never altered): a new tensor, float32, on its device, of its shape.

        The change of a convolution may have more input channels than `base`, as in IC-Light.
        """


class ChangeSource(Protocol):
    """Changes of some parameters of one component, in one file. Only `read` and `check_unchanged` access the file."""

    @property
    def names(self) -> Collection[str]:
        """The canonical names of the parameters that it changes, in the fastest order for reading."""

    @property
    def digest(self) -> str:
        """Equal for sources that make the same changes."""

    def rank(self, name: str) -> int | None:
        """The inner size of the product when the change is a `LowRank`; None for every other kind."""

    def shape(self, name: str) -> Sequence[int]:
        """The shape of the change: that of the parameter, or of a convolution with more input channels."""

    def read(self, name: str) -> Change:
        """The change of one parameter; any thread may call it. Raises its own errors, which are fit for the client."""

    def check_unchanged(self) -> None:
        """Raises an error fit for the client when the file is not the one that `digest` names. Called after the last
        read."""


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
