"""Guidance: from two predictions, or as an input of UNets that were distilled with guidance."""

from __future__ import annotations

import math

import torch

_TIME_FACTOR = 1000.0
_MAX_PERIOD = 10_000.0


def guide(predictions: torch.Tensor, guidance_scale: float | None) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): free + guidance_scale * (prompted - free).

    predictions: [2N, 4, h, w]: for each of N latents, the prediction without the prompt, then the one with it. When
    `guidance_scale` is None they are [N, 4, h, w] and are returned unchanged.
    """
    if guidance_scale is None:
        return predictions
    free, prompted = predictions[0::2], predictions[1::2]
    return free + guidance_scale * (prompted - free)


def guidance_embedding(guidance_scale: float, width: int) -> torch.Tensor:
    """The embedding [width] of a guidance scale (arXiv 2210.03142): sines, then cosines, of frequencies 1 to 1/10000.

    diffusers' `get_guidance_scale_embedding`; diffusers passes the scale less 1. `width` is at least 4.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(_MAX_PERIOD) / (half - 1)))
    angles = torch.tensor(guidance_scale, dtype=torch.float32) * _TIME_FACTOR * frequencies
    embedding = torch.cat([torch.sin(angles), torch.cos(angles)])
    return torch.nn.functional.pad(embedding, (0, width - 2 * half))
