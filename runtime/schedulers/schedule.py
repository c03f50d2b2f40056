"""The schedule that a request runs: diffusers' scheduler, set to the request's steps."""

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

from lorikeet.protocol.shorten import shorten
from lorikeet.schema import ImageToImageInput
from runtime.schedulers.check_schedule import requested_sampler, steps_to_run
from runtime.schedulers.samplers import Sampler
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

# The fields that may make a schedule unusable: the value without effect, and what the client can change.
_NEUTRAL: dict[str, tuple[Any, str]] = {
    "rescale_betas_snr_zero": (False, "set it to false or choose another scheduler"),
    "eta": (0.0, "set it to 0 or choose another scheduler"),
    "prediction_type": (None, "remove it or choose another scheduler"),
}


@dataclass(frozen=True)
class Schedule:
    """A scheduler of diffusers, set to the steps of one request.

    `timesteps`: the timesteps to run, in order. `eta`: the noise of DDIM (arXiv 2010.02502) and of TCD (arXiv
    2402.19159, where it is named gamma).
    """

    scheduler: Any
    timesteps: torch.Tensor
    eta: float

    def pure_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """Standard normal noise [N, 4, h, w], scaled to the noise level at which the schedule begins."""
        scaled: torch.Tensor = noise * self.scheduler.init_noise_sigma
        return scaled

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The latents [N, 4, h, w] plus noise [N, 4, h, w], at the noise level of the first step."""
        noisy: torch.Tensor = self.scheduler.add_noise(latents, noise, self.timesteps[:1])
        return noisy

    def scale(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The UNet's input [N, 4, h, w] for the latents [N, 4, h, w] at this timestep."""
        scaled: torch.Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(
        self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """The latents [N, 4, h, w] after this step. The step draws its noise from `generator`, for all N at once."""
        options = {"eta": self.eta, "generator": generator}
        extra = {name: value for name, value in options.items() if name in self._step_parameters}
        return self.scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]  # type: ignore[no-any-return]

    @cached_property
    def _step_parameters(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.scheduler.step).parameters)


def make_schedule(request: ImageToImageInput, config: dict[str, Any], *, has_image: bool) -> Schedule:
    """The schedule of a request with a checkpoint's scheduler configuration. It runs `num_inference_steps` steps.

    With an init image the schedule has N = min(int(steps / strength), num_train_timesteps) steps, and the last
    `steps` of them are run. In diffusers' pipelines this is num_inference_steps = N, strength = (steps + 0.5) / N.
    Custom timesteps or sigmas replace the schedule. The last int(length * strength) of them are run, as in diffusers'
    `get_timesteps`.

    Raises InvalidArgument when diffusers cannot run this schedule, or when its latents become infinite or NaN.
    """
    try:
        return _tried_schedule(request, config, has_image)
    except Exception as error:  # a hostile configuration makes diffusers raise anything
        field, advice = _cause(request, config, has_image)
        name = requested_sampler(request, config).name
        raise InvalidArgument(field, f"{name} cannot run this schedule ({shorten(str(error))}); {advice}") from error


def _tried_schedule(request: ImageToImageInput, config: dict[str, Any], has_image: bool) -> Schedule:
    """The schedule. Raises any error when it cannot be made or run."""
    schedule = _make_schedule(requested_sampler(request, config), request, has_image)
    _dry_run(schedule)
    return schedule


def _cause(request: ImageToImageInput, config: dict[str, Any], has_image: bool) -> tuple[str, str]:
    """The field that the error for an unusable schedule names, and what the client can change.

    It is a field without which the schedule can be run, if there is one.
    """
    for field, (neutral, advice) in _NEUTRAL.items():
        if getattr(request, field) == neutral:
            continue
        try:
            _tried_schedule(request.model_copy(update={field: neutral}), config, has_image)
        except Exception:  # as in make_schedule
            continue
        return field, advice
    field = "model_name" if request.scheduler is None else "scheduler"
    return field, "choose another scheduler or prediction_type"


def _make_schedule(sampler: Sampler, request: ImageToImageInput, has_image: bool) -> Schedule:
    scheduler = _CLASSES[sampler.class_name].from_config(sampler.config)
    if request.timesteps.is_custom:
        scheduler.set_timesteps(timesteps=request.timesteps.array)
    elif request.sigmas.is_custom:
        scheduler.set_timesteps(sigmas=request.sigmas.array)
    else:
        _set_steps(scheduler, _length(sampler, request, has_image))
    return _last_steps(scheduler, request) if has_image else _from_step(scheduler, 0, request.eta)


def _length(sampler: Sampler, request: ImageToImageInput, has_image: bool) -> int:
    """Number of steps of the whole schedule, before the strength removes the first ones."""
    steps = request.num_inference_steps
    return int(min(steps / request.noise_strength, sampler.max_steps)) if has_image else steps


def _set_steps(scheduler: Any, length: int) -> None:
    """Set exactly `length` steps, with the spacing of the scheduler's configuration."""
    if "original_inference_steps" in scheduler.config:
        # LCM and TCD select their steps from this number of steps, so it must not be below `length`.
        original = max(scheduler.config.original_inference_steps, length)
        scheduler.register_to_config(original_inference_steps=original)
    scheduler.set_timesteps(length)
    if len(scheduler.timesteps) > length and scheduler.timesteps[-1] == -1:
        # Rounding can give the trailing spacing's np.arange(1000, 0, -1000 / length) one step too many.
        scheduler.num_inference_steps = length  # DPM-Solver sets this to its count of timesteps
        scheduler.timesteps = scheduler.timesteps[:-1]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = torch.cat([scheduler.sigmas[:-2], scheduler.sigmas[-1:]])


def _last_steps(scheduler: Any, request: ImageToImageInput) -> Schedule:
    """The last steps of the schedule, as many as the request runs."""
    length = scheduler.num_inference_steps
    return _from_step(scheduler, length - steps_to_run(request, length), request.eta)


def _from_step(scheduler: Any, begin: int, eta: float) -> Schedule:
    """The schedule from its step `begin`, counted from 0.

    Without this number a scheduler looks for the step of the first timestep. When the first two are equal, it takes the
    second one, and later reads behind its last sigma.
    """
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return Schedule(scheduler, scheduler.timesteps[begin:], eta)


def _dry_run(schedule: Schedule) -> None:
    """Run every step of a copy on latents of one element, without the UNet, to find a failing step early.

    Raises any error of a step, and ArithmeticError when the latents become infinite or NaN.
    """
    trial, generator = copy.deepcopy(schedule), torch.Generator().manual_seed(0)
    latents = torch.ones(1, 1, 1, 1)
    for timestep in trial.timesteps:
        latents = trial.step(trial.scale(latents, timestep) / 2, timestep, latents, generator)
    if not latents.isfinite().all():
        raise ArithmeticError("the latents do not stay finite")
