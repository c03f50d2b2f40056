"""A job: one request's latents on their way through its schedule. It owns its scheduler and its generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from runtime.conditioning.guidance import guidance_embedding
from runtime.conditioning.row import Row
from runtime.plan import Plan
from runtime.schedulers.schedule import Schedule, make_schedule


@dataclass(frozen=True)
class Conditions:
    """What the other stages made for a job, float32: text [rows, T, D] and pooled [rows, P] (P = 0: none), rows being
    the negative prompt and the prompt, or the prompt alone; the init image's posterior mean and std [1, 4, h, w],
    [0, 4, h, w] without one."""

    text: torch.Tensor
    pooled: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


class Job:
    """Draws in diffusers' order (posterior, noise, the steps' noise) from one CPU generator, N latents at a time."""

    def __init__(self, plan: Plan, conditions: Conditions) -> None:
        request = plan.request
        self._guidance_scale = request.guidance_scale if plan.guided else None
        self._keep_passes = request.debug_per_pass_latents
        self._text = conditions.text
        self._pooled = conditions.pooled if conditions.pooled.shape[-1] else None
        self._time_ids = _time_ids(plan) if self._pooled is not None else None
        width = plan.guidance_width
        self._timestep_cond = None if width is None else guidance_embedding(request.guidance_scale - 1.0, width)
        self._generator = torch.Generator("cpu").manual_seed(plan.seed)
        self._schedule: Schedule | None = None
        self._index = 0
        self._rows: list[Row] = []
        self._passes: list[torch.Tensor] = []
        self._start(plan, conditions)

    def _start(self, plan: Plan, conditions: Conditions) -> None:
        request, scaling = plan.request, plan.checkpoint.scaling_factor
        shape = (request.num_images, *conditions.mean.shape[1:])
        config = plan.checkpoint.scheduler
        if not plan.has_image:
            self._schedule = make_schedule(request, config, has_image=False)
            self.latents = self._schedule.pure_noise(randn_tensor(shape, self._generator))
        elif request.noise_strength == 0.0:
            # No noise, no step: the VAE's round trip, by the posterior's mean as in AutoencoderKL.forward.
            self.latents = (conditions.mean * scaling).expand(shape).clone()
        else:
            self._schedule = make_schedule(request, config, has_image=True)
            sample = conditions.mean + conditions.std * randn_tensor(conditions.mean.shape, self._generator)
            noise = randn_tensor(shape, self._generator)
            self.latents = self._schedule.add_noise((sample * scaling).expand(shape), noise)

    @property
    def step(self) -> int:
        """Steps done."""
        return self._index

    @property
    def steps(self) -> int:
        """Steps in all."""
        return len(self._schedule.timesteps) if self._schedule else 0

    @property
    def done(self) -> bool:
        return self._index >= self.steps

    @property
    def passes(self) -> torch.Tensor:
        """The latents after each step, [steps, N, 4, h, w]; [0, N, 4, h, w] unless asked for."""
        return torch.stack(self._passes) if self._passes else self.latents[None][:0]

    @property
    def rows(self) -> list[Row]:
        """The questions of the next step: for each picture, without and with the prompt (or with it alone)."""
        if not self._rows:
            self._rows = self._ask()
        return self._rows

    def _ask(self) -> list[Row]:
        assert self._schedule is not None and not self.done
        timestep = self._schedule.timesteps[self._index]
        scaled = self._schedule.scale(self.latents, timestep)
        return [
            Row(
                latent=latent,
                t=timestep.float(),
                text=text,
                pooled=None if self._pooled is None else self._pooled[index],
                time_ids=self._time_ids,
                timestep_cond=self._timestep_cond,
            )
            for latent in scaled
            for index, text in enumerate(self._text)
        ]

    def advance(self, predictions: Sequence[torch.Tensor]) -> None:
        """Take one step, given the UNet's answer [4, h, w] to each of the rows, in their order."""
        assert self._schedule is not None
        prediction = torch.stack(list(predictions)).cpu()
        if self._guidance_scale is not None:
            free, guided = prediction[0::2], prediction[1::2]
            prediction = free + self._guidance_scale * (guided - free)
        timestep = self._schedule.timesteps[self._index]
        self.latents = self._schedule.step(prediction, timestep, self.latents, self._generator)
        self._index += 1
        self._rows = []
        if self._keep_passes:
            self._passes.append(self.latents)


def _time_ids(plan: Plan) -> torch.Tensor:
    """SDXL's size conditioning [6]: original size, crop, target size, each height first (arXiv 2307.01952)."""
    size = (float(plan.padded_height), float(plan.padded_width))
    return torch.tensor([*size, 0.0, 0.0, *size])
