"""LoKr: the Kronecker product of two matrices, each full or low-rank (arXiv 2309.14859), as in LyCORIS and PEFT."""

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

_ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


class _Lokr:
    """w1 [a, c] and w2 [b, d, ...] give [a * b, c * d, ...].

    Either may be stored as w_a [.., rank] @ w_b [rank, ..]; w2 may be a Tucker product with core t2 [rank, rank, ...].
    When both are full, alpha does not scale the change, as in LyCORIS.
    """

    name = "LoKr"
    parameter = "weight"
    is_low_rank = False
    roles: Mapping[str, str] = {f".{role}": role for role in _ROLES}

    def shape(self, factors: FactorShapes) -> Shape:
        first, second = _matrix_shape(factors, "lokr_w1"), _matrix_shape(factors, "lokr_w2")
        if len(first) != 2 or len(second) < 2:
            raise FactorsError(
                f"lokr_w1 and lokr_w2 have shapes {list(first)} and {list(second)}; expected [a, c] and [b, d, ...]"
            )
        return (first[0] * second[0], first[1] * second[1], *second[2:])

    def alpha_rank(self, factors: FactorShapes) -> int | None:
        ranks = [factors[role][0] for role in ("lokr_w1_b", "lokr_w2_b") if role in factors]
        return ranks[-1] if ranks else None

    def change(self, factors: FactorTensors, scale: float) -> Kronecker:
        return Kronecker(factors, scale)


def _matrix_shape(factors: FactorShapes, name: str) -> Shape:
    """The shape of w1 or w2, stored either full or as a product. Raises FactorsError."""
    core = "lokr_t2" if name == "lokr_w2" and "lokr_t2" in factors else None
    if name in factors:
        if any(role in factors for role in (f"{name}_a", f"{name}_b", core)):
            raise FactorsError(f"the file has {name} both as one tensor and as a product; expected one of the two")
        return factors[name]
    left, right = require(factors, f"{name}_a", f"{name}_b")
    return tucker_shape(factors[core], left, right) if core else product_shape(left, right)


@dataclass(frozen=True)
class Kronecker:
    """The change `scale` times the Kronecker product of w1 and w2 (float32)."""

    factors: FactorTensors
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        first, second = self._matrix("lokr_w1", base), self._matrix("lokr_w2", base)
        # The kernel axes come last. Flattened into the columns, they stay last in the product.
        return (self.scale * first).kron(second.flatten(1)).reshape(base.shape)

    def _matrix(self, name: str, base: torch.Tensor) -> torch.Tensor:
        if name in self.factors:
            return self.factors[name].to(base)
        left, right = (self.factors[f"{name}_{side}"].to(base) for side in "ab")
        if name == "lokr_w2" and "lokr_t2" in self.factors:
            return tucker_product(self.factors["lokr_t2"].to(base), left, right)
        return left.flatten(1) @ right.flatten(1)


LOKR = _Lokr()
