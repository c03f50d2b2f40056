"""One weight in two shapes: a linear layer [out, in] and a 1x1 convolution [out, in, 1, 1]. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def reshaped(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The tensor in this shape if it has as many numbers; a convolution with other input channels stays as it is."""
    return tensor.reshape(shape) if tensor.numel() == shape.numel() else tensor
