"""The schedule of steps that a request really runs, with diffusers' scheduler set to it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_tcd import TCDScheduler

from lorikeet.schema import ImageToImageInput
from runtime.schedulers.samplers import Sampler
from runtime.schedulers.schedule_fields import requested_sampler, steps_left
from runtime.stage_errors import InvalidArgument

_CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        LCMScheduler,
        PNDMScheduler,
        TCDScheduler,
    )
}
_SHOWN = 200  # characters of what diffusers says


@dataclass(frozen=True)
class Schedule:
    """A scheduler set to the steps of one request. `timesteps` are those that are run, in order; `eta` is DDIM's
    (arXiv 2010.02502) and TCD's (arXiv 2402.19159, there gamma)."""

    scheduler: Any
    timesteps: torch.Tensor
    eta: float

    def pure_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Standard normal noise [N, 4, h, w] at the level that the schedule begins with."""
        scaled: torch.Tensor = noise * self.scheduler.init_noise_sigma
        return scaled

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The latents [N, 4, h, w] at the noise level of the first step."""
        noisy: torch.Tensor = self.scheduler.add_noise(latents, noise, self.timesteps[:1])
        return noisy

    def scale(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The latents as the UNet wants to see them at this timestep."""
        scaled: torch.Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The latents one step on. Noise that the step injects is drawn from `generator`, for all N at once."""
        offered = {"eta": self.eta, "generator": generator}
        extra = {name: value for name, value in offered.items() if name in self._step_takes}
        return self.scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]  # type: ignore[no-any-return]

    @cached_property
    def _step_takes(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.scheduler.step).parameters)


def make_schedule(request: ImageToImageInput, config: dict[str, Any], *, has_image: bool) -> Schedule:
    """The schedule of a request on a checkpoint's scheduler configuration.

    `num_inference_steps` steps are really run. With an init image the schedule has N = min(int(steps / strength),
    num_train_timesteps) steps and the last ones are run; in terms of diffusers' pipelines that is
    num_inference_steps = N and strength = (steps + 0.5) / N. Custom timesteps or sigmas are the schedule, and of
    them int(length * strength) are run, as diffusers' `get_timesteps` has it.

    Raises InvalidArgument for what diffusers makes no such schedule of, or none whose numbers stay finite.
    """
    sampler = requested_sampler(request, config)
    try:
        schedule = _make_schedule(sampler, request, has_image)
        _rehearse(schedule)
    except Exception as error:  # a hostile configuration makes diffusers raise anything
        field = "rescale_betas_snr_zero" if request.rescale_betas_snr_zero else "model_name"
        raise InvalidArgument(field, f"{sampler.name} cannot run this schedule ({str(error)[:_SHOWN]})") from error
    return schedule


def _make_schedule(sampler: Sampler, request: ImageToImageInput, has_image: bool) -> Schedule:
    scheduler = _CLASSES[sampler.class_name].from_config(sampler.config)
    if request.timesteps.is_custom:
        scheduler.set_timesteps(timesteps=request.timesteps.array)
    elif request.sigmas.is_custom:
        scheduler.set_timesteps(sigmas=request.sigmas.array)
    else:
        _space_out(scheduler, _length(sampler, request, has_image))
    if not has_image:
        return Schedule(scheduler, scheduler.timesteps, request.eta)
    return _last_steps(scheduler, request)


def _length(sampler: Sampler, request: ImageToImageInput, has_image: bool) -> int:
    """Steps of the whole schedule."""
    steps = request.num_inference_steps
    return int(min(steps / request.noise_strength, sampler.longest)) if has_image else steps


def _space_out(scheduler: Any, length: int) -> None:
    """Set `length` timesteps, spaced as the scheduler has it."""
    if "original_inference_steps" in scheduler.config:
        # LCM and TCD pick their steps from this many.
        original = max(scheduler.config.original_inference_steps, length)
        scheduler.register_to_config(original_inference_steps=original)
    scheduler.set_timesteps(length)
    if len(scheduler.timesteps) > length and scheduler.timesteps[-1] == -1:
        # The trailing spacing's np.arange(1000, 0, -1000 / length) may, by rounding, end with a step too many.
        scheduler.timesteps = scheduler.timesteps[:-1]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-2], scheduler.sigmas[-1:]])


def _last_steps(scheduler: Any, request: ImageToImageInput) -> Schedule:
    """The part of the schedule that the strength leaves."""
    length = scheduler.num_inference_steps
    begin = length - steps_left(request, length)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return Schedule(scheduler, scheduler.timesteps[begin:], request.eta)


def _rehearse(schedule: Schedule) -> None:
    """Take every step with a single number in the UNet's place, so that what fails on the way fails at once.

    Raises whatever a step raises, and ArithmeticError where the numbers do not stay finite.
    """
    trial, generator = copy.deepcopy(schedule), torch.Generator().manual_seed(0)
    latents = torch.ones(1, 1, 1, 1)
    for timestep in trial.timesteps:
        latents = trial.step(trial.scale(latents, timestep) / 2, timestep, latents, generator)
    if not latents.isfinite().all():
        raise ArithmeticError("its numbers do not stay finite")
