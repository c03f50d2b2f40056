"""The loss of latent consistency distillation.

Luo et al., "Latent consistency models" and "LCM-LoRA". A student learns to predict, from any point of the teacher's
path from noise to latents, the latents at its end. The teacher goes a short step along the path; the student's
prediction before the step must equal its average's prediction after the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

STRIDE = 100  # timesteps of 1000 in the teacher's step
HUBER_WIDTH = 1e-3
# The boundary condition of diffusers' LCMScheduler.
TIMESTEP_SCALING = 10.0
SIGMA_DATA = 0.5

Predict: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # noisy latents and times [n] to v


def consistency_loss(
    latents: torch.Tensor, alphas_cumprod: torch.Tensor, teacher: Predict, student: Predict, average: Predict
) -> torch.Tensor:
    """The pseudo-Huber loss at one random time for each of the scaled `latents` [n, 4, h, w].

    `alphas_cumprod` [times] is the scheduler's table. `teacher` predicts with guidance.
    """
    start = torch.randint(1, len(alphas_cumprod), (len(latents),), device=latents.device)
    end = (start - STRIDE).clamp(min=0)
    power = _power(alphas_cumprod, start)
    noisy = power.sqrt() * latents + (1 - power).sqrt() * torch.randn_like(latents)
    with torch.no_grad():
        less_noisy = ddim_step(noisy, teacher(noisy, start), alphas_cumprod, start, end)
        target = consistent_latents(less_noisy, average(less_noisy, end), alphas_cumprod, end)
    predicted = consistent_latents(noisy, student(noisy, start), alphas_cumprod, start)
    return ((predicted - target).square() + HUBER_WIDTH**2).sqrt().mean() - HUBER_WIDTH


def ddim_step(
    noisy: torch.Tensor, v: torch.Tensor, alphas_cumprod: torch.Tensor, start: torch.Tensor, end: torch.Tensor
) -> torch.Tensor:
    """DDIM's step without noise, from the times `start` [n] to `end` [n]. All tensors [n, 4, h, w]."""
    power, next_power = _power(alphas_cumprod, start), _power(alphas_cumprod, end)
    latents = power.sqrt() * noisy - (1 - power).sqrt() * v.float()
    noise = power.sqrt() * v.float() + (1 - power).sqrt() * noisy
    return next_power.sqrt() * latents + (1 - next_power).sqrt() * noise


def consistent_latents(
    noisy: torch.Tensor, v: torch.Tensor, alphas_cumprod: torch.Tensor, times: torch.Tensor
) -> torch.Tensor:
    """The latents that LCMScheduler computes from `v` at `times` [n]; `noisy` itself at time 0."""
    power = _power(alphas_cumprod, times)
    latents = power.sqrt() * noisy - (1 - power).sqrt() * v.float()
    scaled = TIMESTEP_SCALING * times.float()[:, None, None, None]
    size = (scaled.square() + SIGMA_DATA**2).sqrt()
    return (SIGMA_DATA / size).square() * noisy + scaled / size * latents


def _power(alphas_cumprod: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    return alphas_cumprod[times][:, None, None, None]
