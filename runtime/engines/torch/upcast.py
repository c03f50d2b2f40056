"""Weights in reduced precision on a processor that computes in float32 alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def compute_in_float32(layers: Iterable[nn.Module]) -> None:
    """From now on, let each of these layers compute in float32, whatever its parameters are held in: they are widened
    when it is called, and the wide ones are gone when it returns. A network takes half the memory, and little more
    time, as a weight is used for many numbers. To be called once for a network, which runs in one thread at a time."""
    scratch = _Scratch()
    for layer in layers:
        if isinstance(layer, nn.Embedding):
            layer.register_forward_hook(_wide_rows)
        else:
            layer.register_forward_pre_hook(scratch.before)
            layer.register_forward_hook(scratch.after, always_call=True)


def _wide_rows(_layer: nn.Module, _inputs: Any, rows: torch.Tensor) -> torch.Tensor:
    """Of a table, a call needs the rows that it looks up."""
    return rows.float()


class _Scratch:
    """Memory for the wide parameters of the layer that runs, as large as the largest that ever ran. (A layer within
    one of these layers has memory of its own.)"""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._narrow: list[dict[str, nn.Parameter | None]] = []

    def before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        narrow = dict(layer._parameters)
        parts = {name: tensor for name, tensor in narrow.items() if tensor is not None}
        free = self._room(sum(tensor.numel() for tensor in parts.values()))
        for name, tensor in parts.items():
            wide, free = free[: tensor.numel()], free[tensor.numel() :]
            layer._parameters[name] = wide.view(tensor.shape).copy_(tensor)  # type: ignore[assignment]
        self._narrow.append(narrow)
        # A network that asks for the dtype of its parameters has made its tensors narrow.
        return tuple(item.float() if isinstance(item, torch.Tensor) else item for item in inputs)

    def after(self, layer: nn.Module, *_: Any) -> None:
        layer._parameters.update(self._narrow.pop())

    def _room(self, size: int) -> torch.Tensor:
        if self._narrow:
            return torch.empty(size)
        if len(self._buffer) < size:
            self._buffer = torch.empty(size)
        return self._buffer
