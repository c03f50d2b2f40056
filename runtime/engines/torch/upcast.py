"""Runs weights of reduced precision on a processor that computes only in float32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def compute_in_float32(layers: Iterable[nn.Module]) -> None:
    """Make each of these layers compute in float32, whatever dtype its parameters have.

    A layer's parameters are upcast when it is called, and the copies are dropped when it returns. The network needs
    half the memory and little more time, because each copied weight is used for many numbers. Call this once for a
    network. Only one thread at a time may run the network.
    """
    upcast = _Upcast()
    for layer in layers:
        if isinstance(layer, nn.Embedding):
            layer.register_forward_hook(_upcast_rows)
        else:
            layer.register_forward_pre_hook(upcast.before)
            layer.register_forward_hook(upcast.after, always_call=True)


def _upcast_rows(_layer: nn.Module, _inputs: Any, rows: torch.Tensor) -> torch.Tensor:
    """Upcast only the rows of the embedding that the call looks up."""
    return rows.float()


class _Upcast:
    """The float32 copies of the running layer's parameters, in a buffer as large as the largest layer so far.

    A layer that runs inside another one gets separate memory.
    """

    def __init__(self) -> None:
        self._buffer = torch.empty(0)
        self._stored: list[dict[str, nn.Parameter | None]] = []

    def before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        stored = dict(layer._parameters)
        parts = {name: tensor for name, tensor in stored.items() if tensor is not None}
        free = self._memory(sum(tensor.numel() for tensor in parts.values()))
        for name, tensor in parts.items():
            copy, free = free[: tensor.numel()], free[tensor.numel() :]
            layer._parameters[name] = copy.view(tensor.shape).copy_(tensor)  # type: ignore[assignment]
        self._stored.append(stored)
        # Some networks cast their activations to the dtype of their parameters, so the inputs are cast back.
        return tuple(item.float() if isinstance(item, torch.Tensor) else item for item in inputs)

    def after(self, layer: nn.Module, *_: Any) -> None:
        layer._parameters.update(self._stored.pop())

    def _memory(self, size: int) -> torch.Tensor:
        if self._stored:
            return torch.empty(size)
        if len(self._buffer) < size:
            self._buffer = torch.empty(size)
        return self._buffer
