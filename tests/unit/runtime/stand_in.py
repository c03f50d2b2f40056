"""A UNet that costs nothing, for a pipeline of diffusers and for a job alike, and what answers a job's asks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import nn

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.stages.denoiser.job import Job
from tests.tiny.text_encoders import POOLED_2
from tests.tiny.unets import TIME_ID_WIDTH, TIME_IDS
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine

Respond = Callable[[Ask], Outputs]
Returned = TypeVar("Returned")


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


def fake_bound(key: str = "unet") -> Bound:
    """An engine that the test stands in for, and a binding that counts its releases."""
    return Bound(FakeEngine(), FakeBinding(key), 2)


def releases(bound: Bound) -> int:
    """How often a fake bound was released."""
    assert isinstance(bound.binding, FakeBinding)
    return bound.binding.released


def tensor(ask: Ask, name: str) -> torch.Tensor:
    """A field of an ask's row."""
    found = ask.inputs[name]
    assert isinstance(found, torch.Tensor)
    return found


def answered(
    asking: Generator[list[Ask], list[Outputs], Returned], respond: Respond
) -> tuple[list[list[Ask]], Returned]:
    """Answer a generator's asks to its end: the lists of asks that it yielded, and what it returned."""
    yielded: list[list[Ask]] = []
    try:
        yielded.append(next(asking))
        while True:
            yielded.append(asking.send([respond(ask) for ask in yielded[-1]]))
    except StopIteration as end:
        return yielded, end.value


def run_to_end(job: Job, respond: Respond) -> torch.Tensor:
    """The latents [N, 4, h, w] of a job whose asks are all answered so."""
    while not job.done:
        answered(job.step(), respond)
    return job.latents


def finish(job: Job) -> torch.Tensor:
    """The latents [N, 4, h, w] of a job that the stand-in has answered to the end."""
    return run_to_end(job, lambda ask: {"prediction": answer(tensor(ask, "latent"), tensor(ask, "t"))})
