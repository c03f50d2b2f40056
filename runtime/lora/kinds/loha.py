"""LoHa (FedPara, arXiv 2108.06098): the elementwise product of two low-rank products, as in LyCORIS and PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.lora_kind import (
    FactorsError,
    FactorShapes,
    FactorTensors,
    Shape,
    product_shape,
    require,
    tucker_product,
    tucker_shape,
)

if TYPE_CHECKING:
    import torch

_FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class _Loha:
    """w_a [out, rank] and w_b [rank, in * kernel].

    With Tucker cores t [rank, rank, kernel]: w_a [rank, out] and w_b [rank, in].
    """

    name = "LoHa"
    parameter = "weight"
    is_low_rank = False
    roles: Mapping[str, str] = {f".{role}": role for role in (*_FACTORS, "hada_t1", "hada_t2")}

    def shape(self, factors: FactorShapes) -> Shape:
        first_a, first_b, second_a, second_b = require(factors, *_FACTORS)
        if "hada_t1" in factors or "hada_t2" in factors:
            first_core, second_core = require(factors, "hada_t1", "hada_t2")
            halves = tucker_shape(first_core, first_a, first_b), tucker_shape(second_core, second_a, second_b)
        else:
            halves = product_shape(first_a, first_b), product_shape(second_a, second_b)
        if halves[0] != halves[1] or first_b[0] != second_b[0]:
            raise FactorsError(
                f"the two products have shapes {list(halves[0])} and {list(halves[1])} and ranks {first_b[0]} and "
                f"{second_b[0]}; expected equal shapes and ranks"
            )
        return halves[0]

    def alpha_rank(self, factors: FactorShapes) -> int | None:
        return factors["hada_w1_b"][0]

    def change(self, factors: FactorTensors, scale: float) -> Hadamard:
        return Hadamard(factors, scale)


@dataclass(frozen=True)
class Hadamard:
    """The change `scale` times the elementwise product of the two low-rank products (float32)."""

    factors: FactorTensors
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        first, second = (self._half(number, base) for number in "12")
        return first.mul_(second).mul_(self.scale).reshape(base.shape)

    def _half(self, number: str, base: torch.Tensor) -> torch.Tensor:
        left, right = (self.factors[f"hada_w{number}_{side}"].to(base) for side in "ab")
        if f"hada_t{number}" in self.factors:
            return tucker_product(self.factors[f"hada_t{number}"].to(base), left, right)
        return left.flatten(1) @ right.flatten(1)


LOHA = _Loha()
