"""DoRA (arXiv 2402.09353): another kind's change D gives the direction of a weight W, a vector m its magnitude.

LyCORIS and PEFT agree at scale 1: W' = m (W + D) / |W + D|, with the norm over all axes but one. At another scale s:

    PEFT, diffusers' `set_adapters`    W' = m (W + s D) / |W + s D|
    LyCORIS                            W' = (W + D) (1 + s (m / |W + D| - 1))

The key of the magnitude says which package wrote the file, and so which formula applies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.lora.kinds.lora_kind import FactorsError, FactorTensors, LoraKind, Shape
from runtime.weights.change import Change

if TYPE_CHECKING:
    import torch

LYCORIS, PEFT = "dora_scale", "lora_magnitude_vector"
ROLES: Mapping[str, str] = {
    ".dora_scale": LYCORIS,
    ".lora_magnitude_vector": PEFT,
    ".lora_magnitude_vector.weight": PEFT,
}
_EPSILON = 2.0**-23  # float32's machine epsilon, as in LyCORIS: a row of zeros stays zero


def axis(role: str, magnitude: Shape, weight: Shape) -> int:
    """The axis of the weight that the magnitude scales: 0, or 1 in LyCORIS files with `wd_on_out=False`.

    Raises FactorsError when the magnitude's shape fits neither axis.
    """
    size = math.prod(magnitude)
    if len(weight) > 1 and size == weight[0] and (role == PEFT or magnitude[:1] == (size,)):
        return 0
    if len(weight) > 1 and size == weight[1] and role == LYCORIS and magnitude[:2] == (1, size):
        return 1
    expected = "[out]" if role == PEFT else "[out, 1, ...] or [1, in, ...]"
    raise FactorsError(f"{role} has shape {list(magnitude)}; expected {expected} for a weight of shape {list(weight)}")


def decomposed(
    kind: LoraKind, factors: FactorTensors, magnitude: torch.Tensor, role: str, scaling: float, scale: float
) -> Change:
    """The change of a layer that has a magnitude. `scaling` is alpha / rank, `scale` the request's LoRA scale."""
    if role == PEFT:
        return Decomposed(kind.change(factors, scaling * scale), magnitude, role, 1.0)
    return Decomposed(kind.change(factors, scaling), magnitude, role, scale)


@dataclass(frozen=True)
class Decomposed:
    """The change from W to `(W + direction) * (1 + strength * (magnitude / |W + direction| - 1))`, float32."""

    direction: Change
    magnitude: torch.Tensor
    role: str
    strength: float

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        kept_axis = axis(self.role, tuple(self.magnitude.shape), tuple(base.shape))
        weight = self.direction.delta(base).add_(base)
        broadcast = [1] * base.dim()
        broadcast[kept_axis] = -1
        norm = weight.transpose(0, kept_axis).flatten(1).norm(dim=1).add_(_EPSILON).reshape(broadcast)
        ratio = self.magnitude.to(base).reshape(broadcast) / norm
        return weight.mul_(1.0 + self.strength * (ratio - 1.0)).sub_(base)
