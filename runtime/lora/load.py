"""Loads a LoRA's factors for one component of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from runtime.lora.file import LoraError, LoraLayer
from runtime.weights import LowRank


def load_factors(path: Path, layers: Sequence[LoraLayer], scale: float) -> dict[str, LowRank]:
    """Parameter name -> its low-rank change: `scale * alpha / rank * up @ down`.

    The tensors keep the file's dtype. Raises LoraError when a factor is not finite.
    """
    factors = {}
    with safe_open(path, framework="pt") as file:
        for layer in layers:
            alpha = float(file.get_tensor(layer.alpha)) if isinstance(layer.alpha, str) else layer.alpha
            down, up = file.get_tensor(layer.down), file.get_tensor(layer.up)
            multiplier = scale * layer.multiplier(alpha)
            if not (math.isfinite(multiplier) and bool(down.isfinite().all()) and bool(up.isfinite().all())):
                raise LoraError(f"{layer.down}, {layer.up} or its alpha is not finite")
            factors[layer.target.parameter] = LowRank(down, up, multiplier)
    return factors
