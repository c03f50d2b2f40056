"""Low-rank inputs: each adds `b @ a` to one layer's weight, without changing the weight.

`<layer>.lora_a` and `<layer>.lora_b` have the scale of the LoRA folded into b. Several LoRAs are one pair with the sum
of their ranks.

Linear layers and pointwise convolutions: a [1 or rows, rank, in], b [1 or rows, out, rank]. Other convolutions:
a [1 or rows, rank, taps, in], where a tap is a position in the kernel, in row-major order; b as above.

So each row of a call can have its own LoRAs. Rank 0 adds nothing.
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
                self._add(name, layer, _convolution_axes(name, layer), _convolution(layer))

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
    if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise ExportError(f"{name}: no low-rank inputs for a convolution with groups or with other padding than zeros")
    if layer.dilation != (1, 1):
        raise ExportError(f"{name}: no low-rank inputs for a convolution with dilation")
    out, inputs, height, width = layer.weight.shape
    a = (LOW_RANK_ROWS, rank_axis(name), height * width, inputs)
    return _pair(name, a, (LOW_RANK_ROWS, out, rank_axis(name)))


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


def _convolution(layer: nn.Conv2d) -> Term:
    """Each tap is a matrix product with all pixels. A fixed convolution moves the products of the taps, and sums them.

    So the rank is a dynamic size of matrix products and of a batch. As the kernel of a convolution, `a` would need a
    static rank in OpenVINO.
    """
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    kernel = torch.eye(taps).reshape(1, taps, *layer.kernel_size)

    def term(_layer: nn.Module, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """x: [rows, in, h, w]."""
        # Sizes with a rank are -1: ONNX takes a 0 for the input's size.
        products = (a.flatten(1, 2) @ x.flatten(2)).reshape(-1, taps, *x.shape[2:])
        inner = functional.conv2d(products, kernel, None, layer.stride, layer.padding)
        height, width = inner.shape[2:]
        return (b @ inner.reshape(x.shape[0], -1, height * width)).reshape(x.shape[0], b.shape[1], height, width)

    return term
