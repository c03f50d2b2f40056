"""Random weights that behave: seeded, all distinct, and scaled so that activations keep their size."""

from collections.abc import Mapping
from math import prod

import torch
from torch import nn

NORM_SPREAD = 0.1
BIAS_SPREAD = 0.1


def fill(module: nn.Module, seed: int, gains: Mapping[str, float], device: torch.device | None = None) -> None:
    """Draw every parameter of `module` anew from `seed`, in the order of `named_parameters`, on a device (the CPU).

    Matrices and kernels keep the variance of their input (standard deviation 1 / sqrt(fan in)), norms are
    near 1, biases near 0. No tensor is constant and no two are equal: exporters merge equal tensors. `gains`
    maps a part of a parameter's name to a factor on its spread; several matching parts multiply.
    """
    device = device or torch.device("cpu")
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, device=device)
            gain = prod(factor for part, factor in gains.items() if part in name)
            parameter.copy_(gain * noise * _spread(name, parameter) + _centre(name, parameter))


def _spread(name: str, parameter: torch.Tensor) -> float:
    if parameter.ndim > 1:
        return float(parameter[0].numel() ** -0.5)
    return BIAS_SPREAD if name.endswith("bias") else NORM_SPREAD


def _centre(name: str, parameter: torch.Tensor) -> float:
    is_norm_weight = parameter.ndim == 1 and name.endswith("weight")
    return 1.0 if is_norm_weight else 0.0
