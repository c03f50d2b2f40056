"""The guidance scale as an input of the UNet, for UNets that were distilled with guidance (arXiv 2210.03142)."""

from __future__ import annotations

import math

import torch

_LOUDNESS = 1000.0
_LONGEST = 10_000.0


def guidance_embedding(scale: float, width: int) -> torch.Tensor:
    """The embedding [width] of a guidance scale: sines, then cosines, of frequencies from 1 to 1 / 10000.

    Diffusers' `get_guidance_scale_embedding`; it passes the scale less 1. `width` is at least 4.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(_LONGEST) / (half - 1)))
    angles = torch.tensor(scale, dtype=torch.float32) * _LOUDNESS * frequencies
    embedding = torch.cat([torch.sin(angles), torch.cos(angles)])
    return torch.nn.functional.pad(embedding, (0, width - 2 * half))
