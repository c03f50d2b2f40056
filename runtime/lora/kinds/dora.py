"""DoRA (arXiv 2402.09353): a change of another kind gives a weight's direction, a vector of the file its magnitude.

LyCORIS and PEFT agree at scale 1: W' = m (W + D) / |W + D|, the norm taken over all axes but one. At another scale s,
PEFT (and diffusers' `set_adapters`) scale the direction's change, m (W + s D) / |W + s D|; LyCORIS scales what the
magnitude does, (W + D) (1 + s (m / |W + D| - 1)). A file is read as the package that wrote it does; its key tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.kind import Kind, PartsError, Shape, Tensors
from runtime.weights.change import Change

if TYPE_CHECKING:
    import torch

LYCORIS, PEFT = "dora_scale", "lora_magnitude_vector"
ROLES: Mapping[str, str] = {
    ".dora_scale": LYCORIS,
    ".lora_magnitude_vector": PEFT,
    ".lora_magnitude_vector.weight": PEFT,
    ".lora_magnitude_vector.default.weight": PEFT,
}
_EPSILON = 2.0**-23  # LyCORIS' own, float32's; a row of zeros stays zeros


def axis(role: str, magnitude: Shape, weight: Shape) -> int:
    """Which axis of the weight the magnitude runs along: 0, or 1 in LyCORIS files that decompose the inputs.

    Raises PartsError when it runs along neither.
    """
    size = math.prod(magnitude)
    if len(weight) > 1 and size == weight[0] and (role == PEFT or magnitude[:1] == (size,)):
        return 0
    if len(weight) > 1 and size == weight[1] and role == LYCORIS and magnitude[:2] == (1, size):
        return 1
    raise PartsError(f"{role} is {list(magnitude)} for a weight of {list(weight)}")


def decomposed(kind: Kind, parts: Tensors, magnitude: torch.Tensor, role: str, factor: float, scale: float) -> Change:
    """The change of a layer with a magnitude; `factor` is alpha / rank, `scale` the request's."""
    if role == PEFT:
        return Decomposed(kind.change(parts, factor * scale), magnitude, role, 1.0)
    return Decomposed(kind.change(parts, factor), magnitude, role, scale)


@dataclass(frozen=True)
class Decomposed:
    """A change to `(W + direction) * (1 + strength * (magnitude / |W + direction| - 1))`."""

    direction: Change
    magnitude: torch.Tensor
    role: str
    strength: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        kept = axis(self.role, tuple(self.magnitude.shape), tuple(base.shape))
        weight = self.direction.delta(base).add_(base)
        along = [1] * base.dim()
        along[kept] = -1
        norm = weight.transpose(0, kept).flatten(1).norm(dim=1).add_(_EPSILON).reshape(along)
        ratio = self.magnitude.to(base).reshape(along) / norm
        return weight.mul_(1.0 + self.strength * (ratio - 1.0)).sub_(base)
