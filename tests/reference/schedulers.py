"""The API's scheduler names in diffusers' terms."""

from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
    TCDScheduler,
)

SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "DPM++ 2M": (DPMSolverMultistepScheduler, {}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "Euler": (EulerDiscreteScheduler, {}),
    "Euler A": (EulerAncestralDiscreteScheduler, {}),
    "Euler (trailing timesteps)": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "LCM": (LCMScheduler, {}),
    "LCM (trailing timesteps)": (LCMScheduler, {"timestep_spacing": "trailing"}),
    "DDIM": (DDIMScheduler, {}),
    "TCD": (TCDScheduler, {}),
}


def make_scheduler(own: SchedulerMixin, name: str | None, schedule_steps: int) -> SchedulerMixin:
    """A fresh scheduler called `name`, or like the checkpoint's `own`, from the configuration of `own`.

    LCM and TCD pick their timesteps from an original schedule that must hold at least `schedule_steps`.
    """
    if name is None:
        return type(own).from_config(own.config)
    kind, options = SCHEDULERS[name]
    scheduler = kind.from_config(own.config, **options)
    if "original_inference_steps" in scheduler.config:
        original = max(scheduler.config.original_inference_steps, schedule_steps)
        scheduler.register_to_config(original_inference_steps=original)
    return scheduler
