"""Applies the weights of tokens to the hidden states that a text encoder made of a chunk."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.prompts.weighting import PromptError


def emphasize(states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """States [T, D] times the weights of their tokens, then scaled to the mean that they had, as in A1111.

    `weights`: of the tokens after the first one, which like the tokens behind them has the weight 1.

    Raises PromptError when no scale restores the mean. States that are not finite stay so: weights did not cause it.
    """
    if all(weight == 1.0 for weight in weights):
        return states
    factors = torch.ones(len(states), dtype=states.dtype)
    factors[1 : 1 + len(weights)] = torch.tensor(weights, dtype=states.dtype)
    weighted = states * factors[:, None].to(states.device)
    restored = weighted * (states.double().mean() / weighted.double().mean()).to(states.dtype)
    if torch.isfinite(states).all() and not torch.isfinite(restored).all():
        raise PromptError("its weights cancel each other in a text encoder: choose other weights")
    return restored
