"""The protocol of a LoRA kind, and the shape rules that several kinds share. Importing this takes no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from runtime.weights.change import Change

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
FactorShapes = Mapping[str, Shape]  # by role
FactorTensors = Mapping[str, "torch.Tensor"]  # by role


class FactorsError(ValueError):
    """A layer's tensors do not fit each other, or one is missing. The message is fit for the client."""


class LoraKind(Protocol):
    """One way to store the change of a parameter in tensors.

    A key's suffix gives the role of its tensor; `factors` maps the roles of one layer to its shapes or tensors.
    """

    @property
    def name(self) -> str:
        """The name that messages use."""

    @property
    def parameter(self) -> str:
        """The parameter of the module that this kind changes: `weight` or `bias`."""

    @property
    def roles(self) -> Mapping[str, str]:
        """Suffix of a key -> role of its tensor."""

    @property
    def is_low_rank(self) -> bool:
        """Whether every change of this kind is a `LowRank`: `scale * up @ down`."""

    def shape(self, factors: FactorShapes) -> Shape:
        """The shape [out, in, ...] of the change, or that shape with all axes but the first flattened.

        Raises FactorsError when a tensor is missing or the shapes do not fit each other.
        """

    def alpha_rank(self, factors: FactorShapes) -> int | None:
        """The rank that alpha is divided by; None when alpha does not scale this change."""

    def change(self, factors: FactorTensors, scale: float) -> Change:
        """The change: `scale`, which includes alpha / rank, times the product of the tensors (float32)."""


def require(factors: FactorShapes, *roles: str) -> list[Shape]:
    """The shapes of these roles. Raises FactorsError naming the first that is missing."""
    for role in roles:
        if role not in factors:
            raise FactorsError(f"the {role} tensor is missing; expected {', '.join(roles)}")
    return [factors[role] for role in roles]


def product_shape(left: Shape, right: Shape) -> Shape:
    """The shape of `left` [out, rank, 1...] times `right` [rank, in, ...]. Raises FactorsError."""
    if len(left) < 2 or len(right) < 2 or left[1] != right[0] or left[1] == 0 or math.prod(left[2:]) != 1:
        raise FactorsError(
            f"shapes {list(left)} and {list(right)} cannot be multiplied; expected [out, rank] and [rank, in, ...]"
        )
    return (left[0], *right[1:])


def tucker_shape(core: Shape, left: Shape, right: Shape) -> Shape:
    """The shape [out, in, ...] of the Tucker product of `core` [r, r, ...], `left` [r, out] and `right` [r, in].

    Raises FactorsError.
    """
    if len(core) < 3 or len(left) != 2 or len(right) != 2 or core[:2] != (left[0], right[0]) or 0 in core[:2]:
        raise FactorsError(
            f"shapes {list(core)}, {list(left)} and {list(right)} form no Tucker product; "
            "expected [r, r, kernel], [r, out] and [r, in]"
        )
    return (left[1], right[1], *core[2:])


def tucker_product(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[out, in, ...]: the sum over i, j of left[i, out] core[i, j, ...] right[j, in]."""
    inner = (core.movedim(1, -1) @ right).movedim(-1, 1)  # [r, in, ...]
    return (left.T @ inner.flatten(1)).reshape(-1, *inner.shape[1:])
