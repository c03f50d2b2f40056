"""The API's samplers as diffusers' schedulers, and the schedule of steps that a request really runs."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from lorikeet.schema import SchedulerName
from runtime.checkpoints.schedule import ScheduleError

_CLASSES = {
    cls.__name__: cls for cls in (DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler)
}
_SAMPLERS: dict[SchedulerName, tuple[type[Any], dict[str, Any]]] = {
    SchedulerName.EULER: (EulerDiscreteScheduler, {}),
    SchedulerName.DPMPP_2M_KARRAS: (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    SchedulerName.DDIM: (DDIMScheduler, {}),
}


@dataclass(frozen=True)
class Schedule:
    """A scheduler set to the steps of one request. `timesteps` are those that are run, in order."""

    scheduler: Any
    timesteps: torch.Tensor

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
        extra = {"generator": generator} if self._draws else {}
        return self.scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]  # type: ignore[no-any-return]

    @cached_property
    def _draws(self) -> bool:
        return "generator" in inspect.signature(self.scheduler.step).parameters


def make_schedule(name: SchedulerName | None, config: dict[str, Any], steps: int, strength: float | None) -> Schedule:
    """The schedule of a request: `steps` steps are really run.

    `config` is the checkpoint's scheduler configuration; `name` None takes its own class. `strength` None is
    text-to-image: all steps of a schedule of `steps`. With an init image the schedule has
    min(int(steps / strength), num_train_timesteps) steps and the last `steps` of them are run; in terms of diffusers'
    pipelines that is num_inference_steps = N and strength = (steps + 0.5) / N.

    Raises ScheduleError for a configuration of which diffusers makes no such schedule.
    """
    try:
        return _make_schedule(name, config, steps, strength)
    except Exception as error:  # a hostile configuration makes it raise anything
        raise ScheduleError(f"its scheduler cannot run {steps} steps ({error})") from error


def _make_schedule(name: SchedulerName | None, config: dict[str, Any], steps: int, strength: float | None) -> Schedule:
    cls, options = _SAMPLERS[name] if name else (_CLASSES[config["_class_name"]], {})
    scheduler = cls.from_config(config, **options)
    if strength is None:
        scheduler.set_timesteps(steps)
        return Schedule(scheduler, scheduler.timesteps)
    whole = min(int(steps / strength), scheduler.config.num_train_timesteps)
    scheduler.set_timesteps(whole)
    begin = max(whole - steps, 0) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return Schedule(scheduler, scheduler.timesteps[begin:])
