"""Pixels as CLIP's image encoders take them. Importing this imports no library of networks."""

from __future__ import annotations

import torch

# Of CLIP's training pictures, as in transformers' CLIPImageProcessor.
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
_DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def normalized(unit: torch.Tensor) -> torch.Tensor:
    """Pixels [3, S, S] in [0, 1], less the mean of each channel and divided by its deviation."""
    return (unit - _MEAN) / _DEVIATION
