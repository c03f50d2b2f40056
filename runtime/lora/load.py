"""Loads a LoRA's changes for one component of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from runtime.changes import Change
from runtime.lora.errors import LoraError
from runtime.lora.file import LoraLayer
from runtime.lora.kinds import dora

_MAX = torch.finfo(torch.float32).max
_SHOWN = 300


def load_changes(path: Path, layers: Sequence[LoraLayer], scale: float) -> dict[str, Change]:
    """Parameter name -> its change: `scale * alpha / rank` times what the file's tensors make.

    The tensors are mapped from the file and keep its dtype. Raises LoraError when one is not finite.
    """
    changes: dict[str, Change] = {}
    with safe_open(path, framework="pt") as file:
        for layer in layers:
            parts = {role: _finite(name, file.get_tensor(name)) for role, name in layer.keys.items()}
            alpha = float(file.get_tensor(layer.alpha)) if isinstance(layer.alpha, str) else layer.alpha
            factor = layer.factor(alpha)
            if not abs(factor * scale) <= _MAX:
                name = f"{layer.target.component}.{layer.target.parameter}"
                raise LoraError(f"{name}: its scale, {scale:g} times alpha / rank, is not finite in float32")
            if layer.magnitude is None:
                change = layer.kind.change(parts, factor * scale)
            else:
                role, name = layer.magnitude
                magnitude = _finite(name, file.get_tensor(name))
                change = dora.decomposed(layer.kind, parts, magnitude, role, factor, scale)
            changes[layer.target.parameter] = change
    return changes


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    # The extremes tell it in one pass: they are not finite when one number is not. Arithmetic is in float32.
    if tensor.numel() and not all(abs(extreme.item()) <= _MAX for extreme in tensor.aminmax()):
        raise LoraError(f"{name[:_SHOWN]} is not finite in float32")
    return tensor
