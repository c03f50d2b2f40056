"""The training loss of a network that predicts v."""

from __future__ import annotations

from collections.abc import Callable

import torch


def v_loss(
    latents: torch.Tensor, alphas_cumprod: torch.Tensor, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The mean square error of v at one random time for each of the scaled `latents` [n, 4, h, w].

    `alphas_cumprod` [times] is the scheduler's table. `predict` maps noisy latents and times [n] to v.
    The definition of v is that of Salimans and Ho, "Progressive distillation", appendix D."""
    times = torch.randint(0, len(alphas_cumprod), (len(latents),), device=latents.device)
    noise = torch.randn_like(latents)
    power = alphas_cumprod[times][:, None, None, None]
    noisy = power.sqrt() * latents + (1 - power).sqrt() * noise
    target = power.sqrt() * noise - (1 - power).sqrt() * latents
    return (predict(noisy, times).float() - target).square().mean()
