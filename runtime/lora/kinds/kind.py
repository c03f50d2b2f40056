"""What a kind of LoRA is: the keys that it claims, the shape that they make, the change that their tensors are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from runtime.weights.change import Change

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # by role
Tensors = Mapping[str, "torch.Tensor"]


class PartsError(ValueError):
    """A layer's tensors do not fit each other, or one is missing; the message is fit for the client."""


class Kind(Protocol):
    """One way to write the change of a parameter down. A layer's tensors have roles, which its keys end in."""

    @property
    def name(self) -> str:
        """As messages call it."""

    @property
    def parameter(self) -> str:
        """Which parameter of its module it changes: `weight` or `bias`."""

    @property
    def roles(self) -> Mapping[str, str]:
        """The end of a key -> the role of its tensor."""

    def shape(self, parts: Shapes) -> Shape:
        """The shape [out, in, ...] of the change that tensors of these shapes make, or that with all but the first
        axis flattened. Raises PartsError."""

    def rank(self, parts: Shapes) -> int | None:
        """What alpha is divided by; None where alpha has no part."""

    def change(self, parts: Tensors, scale: float) -> Change:
        """The change, `scale` (with alpha / rank in it) times what the tensors make."""


def need(parts: Shapes, *roles: str) -> list[Shape]:
    """The shapes of these roles. Raises PartsError naming the first that is missing."""
    for role in roles:
        if role not in parts:
            raise PartsError(f"{role} is missing")
    return [parts[role] for role in roles]


def product(left: Shape, right: Shape) -> Shape:
    """The shape of `left` [out, rank, 1...] times `right` [rank, in, ...]. Raises PartsError."""
    if len(left) < 2 or len(right) < 2 or left[1] != right[0] or left[1] == 0 or math.prod(left[2:]) != 1:
        raise PartsError(f"{list(left)} times {list(right)} is no product")
    return (left[0], *right[1:])


def tucker(core: Shape, left: Shape, right: Shape) -> Shape:
    """The shape of the Tucker product of `core` [r, r, ...] with `left` [r, out] and `right` [r, in]."""
    if len(core) < 3 or len(left) != 2 or len(right) != 2 or core[:2] != (left[0], right[0]) or 0 in core[:2]:
        raise PartsError(f"{list(core)} with {list(left)} and {list(right)} is no Tucker product")
    return (left[1], right[1], *core[2:])


def tucker_product(core: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[out, in, ...]: the sum over i, j of left[i, out] core[i, j, ...] right[j, in]."""
    inner = (core.movedim(1, -1) @ right).movedim(-1, 1)  # [r, in, ...]
    return (left.T @ inner.flatten(1)).reshape(-1, *inner.shape[1:])
