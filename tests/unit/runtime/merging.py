"""Weight sets as an engine merges them."""

from __future__ import annotations

import torch

from runtime.weights.merge import merge
from runtime.weights.weight_set import WeightSet


def merged(weights: WeightSet, name: str, base: torch.Tensor) -> torch.Tensor:
    """A parameter with its changes, float32."""
    out = torch.empty(base.shape, dtype=torch.float32)
    merge(*weights.terms(name, base), out)
    return out
