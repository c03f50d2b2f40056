"""What a network that predicts v is trained to make small."""

from __future__ import annotations

from collections.abc import Callable

import torch


def v_loss(
    latents: torch.Tensor, kept: torch.Tensor, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The mean square error of v at one random time for each of the scaled `latents` [n, 4, h, w].

    `kept` is the part of the signal's power that is left at each time (`alphas_cumprod`); `predict` gives v of noisy
    latents and their times [n]. v as in Salimans and Ho, "Progressive distillation", appendix D."""
    times = torch.randint(0, len(kept), (len(latents),), device=latents.device)
    noise = torch.randn_like(latents)
    power = kept[times][:, None, None, None]
    noisy = power.sqrt() * latents + (1 - power).sqrt() * noise
    target = power.sqrt() * noise - (1 - power).sqrt() * latents
    return (predict(noisy, times).float() - target).square().mean()
