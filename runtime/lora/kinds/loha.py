"""LoHa (FedPara, arXiv 2108.06098): the elementwise product of two low-rank products, as LyCORIS and PEFT write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.kind import PartsError, Shape, Shapes, Tensors, need, product, tucker, tucker_product

if TYPE_CHECKING:
    import torch

_FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class _Loha:
    """w_a [out, rank], w_b [rank, in * kernel]; with cores t [rank, rank, kernel], w_a [rank, out], w_b [rank, in]."""

    name = "LoHa"
    parameter = "weight"
    roles: Mapping[str, str] = {f".{role}": role for role in (*_FACTORS, "hada_t1", "hada_t2")}

    def shape(self, parts: Shapes) -> Shape:
        first_a, first_b, second_a, second_b = need(parts, *_FACTORS)
        if "hada_t1" in parts or "hada_t2" in parts:
            first_core, second_core = need(parts, "hada_t1", "hada_t2")
            halves = tucker(first_core, first_a, first_b), tucker(second_core, second_a, second_b)
        else:
            halves = product(first_a, first_b), product(second_a, second_b)
        if halves[0] != halves[1] or first_b[0] != second_b[0]:
            raise PartsError(f"its halves are {list(halves[0])} and {list(halves[1])}")
        return halves[0]

    def rank(self, parts: Shapes) -> int | None:
        return parts["hada_w1_b"][0]

    def change(self, parts: Tensors, scale: float) -> Hadamard:
        return Hadamard(parts, scale)


@dataclass(frozen=True)
class Hadamard:
    """A change by `scale` times the elementwise product of the two halves."""

    parts: Tensors
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        first, second = (self._half(number, base) for number in "12")
        return first.mul_(second).mul_(self.scale).reshape(base.shape)

    def _half(self, number: str, base: torch.Tensor) -> torch.Tensor:
        left, right = (self.parts[f"hada_w{number}_{side}"].to(base) for side in "ab")
        if f"hada_t{number}" in self.parts:
            return tucker_product(self.parts[f"hada_t{number}"].to(base), left, right)
        return left.flatten(1) @ right.flatten(1)


LOHA = _Loha()
