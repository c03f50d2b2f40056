"""Full differences: a tensor that is added to a weight, a bias or a norm, in LyCORIS' format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.lora_kind import FactorShapes, FactorTensors, Shape, require
from runtime.weights.reshaped import reshaped

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class _Difference:
    """One tensor of the parameter's own shape. Alpha does not scale it."""

    name: str
    parameter: str
    roles: Mapping[str, str]
    is_low_rank: bool = False

    def shape(self, factors: FactorShapes) -> Shape:
        return require(factors, "difference")[0]

    def alpha_rank(self, factors: FactorShapes) -> int | None:
        return None

    def change(self, factors: FactorTensors, scale: float) -> Added:
        return Added(factors["difference"], scale)


@dataclass(frozen=True)
class Added:
    """The change `scale * tensor`; `tensor`: float32, of the base's shape, also flattened, or with more inputs."""

    tensor: torch.Tensor
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return reshaped(self.scale * self.tensor.to(base), base.shape)


DIFFERENCE = _Difference("full difference", "weight", {".diff": "difference", ".w_norm": "difference"})
BIAS_DIFFERENCE = _Difference("difference of a bias", "bias", {".diff_b": "difference", ".b_norm": "difference"})
