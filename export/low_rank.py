"""Low-rank inputs: each adds `b @ a` to one layer's weight, without changing the weight.

`<layer>.lora_a` and `<layer>.lora_b` have the scale of the LoRA folded into b. Several LoRAs are one pair with the sum
of their ranks.

Linear layers and pointwise convolutions: a [1 or rows, rank, in], b [1 or rows, out, rank]. So each row of a call can
have its own LoRAs. Rank 0 adds nothing.

Other convolutions: a [rank, in, kh, kw], b [out, rank, 1, 1], for all rows of a call. OpenVINO 2026.4 compiles them
only with a static rank, and computes garbage with rank 0: an engine gives zeros of rank 1, or takes the graph without
these inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from export.axes import LOW_RANK_ROWS, NamedAxes, TensorAxes, rank_axis
from export.errors import ExportError
from runtime.artifacts.manifest import LowRankMode

Term = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class LowRankInputs:
    """Adds low-rank products to the outputs of a network's layers, by forward hooks on the layers.

    `axes`: the inputs by name. Call `use` before the network runs.
    """

    def __init__(self, weights: nn.Module, mode: LowRankMode) -> None:
        """`weights`: the module whose parameter names are the canonical ones."""
        self.axes: NamedAxes = {}
        self._values: Mapping[str, torch.Tensor] = {}
        if mode == "none":
            return
        for name, layer in weights.named_modules():
            if isinstance(layer, nn.Linear):
                self._add(name, layer, _linear_axes(name, layer), _linear)
            elif _is_pointwise(layer):
                self._add(name, layer, _linear_axes(name, layer), _pointwise)
            elif isinstance(layer, nn.Conv2d) and mode == "all":
                self._add(name, layer, _convolution_axes(name, layer), _convolution)

    def use(self, values: Mapping[str, torch.Tensor]) -> None:
        """The values of all inputs in `axes`, for the next run."""
        self._values = values

    def _add(self, name: str, layer: nn.Module, axes: NamedAxes, term: Term) -> None:
        self.axes = {**self.axes, **axes}
        layer.register_forward_hook(partial(self._add_term, name, term))

    def _add_term(
        self, name: str, term: Term, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        a, b = self._values[f"{name}.lora_a"], self._values[f"{name}.lora_b"]
        return output + term(layer, inputs[0], a, b)


def _is_pointwise(layer: nn.Module) -> bool:
    """Whether a convolution is a linear layer for each pixel, as many projections of SD 1.x are."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0))
        and layer.groups == 1
    )


def _linear_axes(name: str, layer: nn.Module) -> NamedAxes:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    out, inputs = weight.shape[:2]
    return _pair(name, (LOW_RANK_ROWS, rank_axis(name), inputs), (LOW_RANK_ROWS, out, rank_axis(name)))


def _convolution_axes(name: str, layer: nn.Conv2d) -> NamedAxes:
    if layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ExportError(f"{name}: no low-rank inputs for a convolution with groups or with other padding than zeros")
    out, inputs, *kernel = layer.weight.shape
    return _pair(name, (rank_axis(name), inputs, *kernel), (out, rank_axis(name), 1, 1))


def _pair(name: str, a: TensorAxes, b: TensorAxes) -> NamedAxes:
    return {f"{name}.lora_a": a, f"{name}.lora_b": b}


def _linear(_layer: nn.Module, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x: [rows, tokens, in] or [rows, in]."""
    if x.dim() == 2:
        return _linear(_layer, x[:, None], a, b)[:, 0]
    return x @ a.transpose(1, 2) @ b.transpose(1, 2)


def _pointwise(_layer: nn.Module, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x: [rows, in, h, w]."""
    rows, _, height, width = x.shape
    return (b @ (a @ x.flatten(2))).reshape(rows, b.shape[1], height, width)


def _convolution(layer: nn.Module, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x: [rows, in, h, w]."""
    assert isinstance(layer, nn.Conv2d)
    return functional.conv2d(functional.conv2d(x, a, None, layer.stride, layer.padding, layer.dilation), b)
