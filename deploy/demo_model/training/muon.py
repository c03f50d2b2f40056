"""The Muon optimizer: each update of a weight matrix is orthogonal. For this UNet it needs half of AdamW's samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import overload

import torch

MOMENTUM = 0.95
WEIGHT_DECAY = 0.01
# From Jordan et al., "Muon: An optimizer for hidden layers": five iterations bring every singular value near 1.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAMW_RMS = 0.2  # the root mean square of AdamW's steps (Liu et al., "Muon is scalable for LLM training"), so that
# one learning rate serves both


class Muon(torch.optim.AdamW):
    """Muon for `matrices` (a convolution counts as one, [out, in * height * width]) and AdamW for the `others`."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], others: Iterable[torch.nn.Parameter]) -> None:
        groups = [{"params": list(others)}, {"params": list(matrices)}]
        super().__init__(groups, lr=0.0, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient; clears the gradients of `matrices`."""
        group = self.param_groups[1]
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape[parameter.shape].append(parameter)
        for parameters in by_shape.values():
            moves = orthogonal(torch.stack([self._momentum(parameter).flatten(1) for parameter in parameters]))
            rate = group["lr"] * _ADAMW_RMS * max(moves.shape[1:]) ** 0.5
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.mul_(1 - group["lr"] * WEIGHT_DECAY).sub_(rate * move.view_as(parameter))
                parameter.grad = None  # AdamW skips parameters without a gradient
        return super().step(closure)  # type: ignore[no-any-return]

    def _momentum(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        """The gradient with Nesterov momentum."""
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW reads it when it loads a saved state
            state["mean"] = torch.zeros_like(gradient)
        mean: torch.Tensor = state["mean"]
        mean.mul_(MOMENTUM).add_(gradient)
        return gradient + MOMENTUM * mean


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices to `matrices` [n, rows, columns] whose singular values are all about 1.

    Newton-Schulz: x <- (a + b x x' + c (x x')^2) x. Every iteration is a polynomial in x x', and these commute.
    So the iterations run on the small square matrix, and the wide matrix is multiplied once."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    wide = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
    square = wide @ wide.mT
    whole = torch.eye(square.shape[1], device=square.device, dtype=square.dtype).expand_as(square)
    a, b, c = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        factor = b * square + c * square @ square
        factor.diagonal(dim1=1, dim2=2).add_(a)
        whole = factor @ whole
        square = factor @ square @ factor
    result: torch.Tensor = whole @ wide
    return result if matrices.shape[1] <= matrices.shape[2] else result.mT
