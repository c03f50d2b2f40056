"""Full differences: what is added to a weight, a bias or a norm, as LyCORIS writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.kind import Shape, Shapes, Tensors, need

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class _Difference:
    """One tensor of the parameter's own shape. Alpha has no part."""

    name: str
    parameter: str
    roles: Mapping[str, str]

    def shape(self, parts: Shapes) -> Shape:
        return need(parts, "difference")[0]

    def rank(self, parts: Shapes) -> int | None:
        return None

    def change(self, parts: Tensors, scale: float) -> Added:
        return Added(parts["difference"], scale)


@dataclass(frozen=True)
class Added:
    """A change by `scale` times a tensor."""

    tensor: torch.Tensor
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return (self.scale * self.tensor.to(base)).reshape(base.shape)


DIFFERENCE = _Difference("full difference", "weight", {".diff": "difference", ".w_norm": "difference"})
BIAS_DIFFERENCE = _Difference("difference of a bias", "bias", {".diff_b": "difference", ".b_norm": "difference"})
