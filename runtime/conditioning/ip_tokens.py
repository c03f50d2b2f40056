"""Packs the image prompts of all IP-Adapters of a request into the fields of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.conditioning.ip_buckets import token_bucket


@dataclass(frozen=True)
class AdapterPrompt:
    """keys and values: [branches, tokens, sum of inner widths] of one attention."""

    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def joined(cls, prompts: Sequence[AdapterPrompt]) -> AdapterPrompt:
        """All tokens of several prompts in one attention."""
        return cls(
            torch.cat([prompt.keys for prompt in prompts], dim=1),
            torch.cat([prompt.values for prompt in prompts], dim=1),
        )


def packed_prompts(prompts: Sequence[AdapterPrompt]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys and values [branches, adapters, tokens, width], and bias [adapters, tokens]: -inf for tokens that a prompt
    does not have."""
    tokens = token_bucket(max(prompt.keys.shape[1] for prompt in prompts))
    keys, values = (
        torch.stack([_padded(getattr(prompt, name), tokens) for prompt in prompts], dim=1)
        for name in ("keys", "values")
    )
    bias = torch.zeros(len(prompts), tokens)
    for row, prompt in zip(bias, prompts, strict=True):
        row[prompt.keys.shape[1] :] = -math.inf
    return keys, values, bias


def _padded(packed: torch.Tensor, tokens: int) -> torch.Tensor:
    return torch.nn.functional.pad(packed, (0, 0, 0, tokens - packed.shape[1]))
