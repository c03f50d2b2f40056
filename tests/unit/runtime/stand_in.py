"""A UNet that costs nothing, for a pipeline of diffusers and for a job alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from runtime.stages.denoiser.job import Job
from tests.tiny.text_encoders import POOLED_2
from tests.tiny.unets import TIME_ID_WIDTH, TIME_IDS


class StandIn(nn.Module):
    """Some bounded function of the latent and the timestep; each row is computed as it would be alone."""

    config = SimpleNamespace(
        sample_size=16, in_channels=4, time_cond_proj_dim=None, addition_time_embed_dim=TIME_ID_WIDTH
    )
    # SDXL's pipelines compare it with what they are about to pass.
    add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=TIME_IDS * TIME_ID_WIDTH + POOLED_2))
    dtype, device = torch.float32, torch.device("cpu")

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor]:
        return (answer(sample, timestep),)


def answer(latent: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """What the stand-in predicts."""
    return torch.tanh(latent * (1 + timestep.float() / 500)) * 0.8 + torch.sin(latent * 3 + timestep.float()) / 5


def finish(job: Job) -> torch.Tensor:
    """The latents of a job that the stand-in has answered to the end, [N, 4, h, w]."""
    while not job.done:
        job.advance([answer(row.latent, row.t) for row in job.rows])
    return job.latents
