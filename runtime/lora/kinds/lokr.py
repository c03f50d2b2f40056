"""LoKr: the Kronecker product of two matrices, each whole or of low rank (arXiv 2309.14859), as in LyCORIS and PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.kind import PartsError, Shape, Shapes, Tensors, need, product, tucker, tucker_product

if TYPE_CHECKING:
    import torch

_ROLES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


class _Lokr:
    """w1 [a, c] and w2 [b, d, ...] make [a * b, c * d, ...]; either may be w_a [.., rank] @ w_b [rank, ..], and w2 a
    Tucker product with its core t2 [rank, rank, ...]. With both whole, alpha has no part, as in LyCORIS."""

    name = "LoKr"
    parameter = "weight"
    roles: Mapping[str, str] = {f".{role}": role for role in _ROLES}

    def shape(self, parts: Shapes) -> Shape:
        first, second = _factor(parts, "lokr_w1"), _factor(parts, "lokr_w2")
        if len(first) != 2 or len(second) < 2:
            raise PartsError(f"its factors are {list(first)} and {list(second)}")
        return (first[0] * second[0], first[1] * second[1], *second[2:])

    def rank(self, parts: Shapes) -> int | None:
        ranks = [parts[role][0] for role in ("lokr_w1_b", "lokr_w2_b") if role in parts]
        return ranks[-1] if ranks else None

    def change(self, parts: Tensors, scale: float) -> Kronecker:
        return Kronecker(parts, scale)


def _factor(parts: Shapes, name: str) -> Shape:
    """The shape of one of the two factors, which is whole or a product, not both. Raises PartsError."""
    core = "lokr_t2" if name == "lokr_w2" and "lokr_t2" in parts else None
    if name in parts:
        if any(role in parts for role in (f"{name}_a", f"{name}_b", core)):
            raise PartsError(f"it has both {name} and factors of it")
        return parts[name]
    left, right = need(parts, f"{name}_a", f"{name}_b")
    return tucker(parts[core], left, right) if core else product(left, right)


@dataclass(frozen=True)
class Kronecker:
    """A change by `scale` times the Kronecker product of the two factors."""

    parts: Tensors
    scale: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        first, second = self._factor("lokr_w1", base), self._factor("lokr_w2", base)
        # The kernel's axes are the last: flattened into the columns, they stay the last of the product's.
        return (self.scale * first).kron(second.flatten(1)).reshape(base.shape)

    def _factor(self, name: str, base: torch.Tensor) -> torch.Tensor:
        if name in self.parts:
            return self.parts[name].to(base)
        left, right = (self.parts[f"{name}_{side}"].to(base) for side in "ab")
        if name == "lokr_w2" and "lokr_t2" in self.parts:
            return tucker_product(self.parts["lokr_t2"].to(base), left, right)
        return left.flatten(1) @ right.flatten(1)


LOKR = _Lokr()
