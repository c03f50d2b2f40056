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

from tests.reference.request import ReferenceRequest

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


def make_scheduler(own: SchedulerMixin, request: ReferenceRequest) -> SchedulerMixin:
    """A fresh scheduler of the requested name, or like the checkpoint's `own`, from the configuration of `own`."""
    kind, options = SCHEDULERS[request.scheduler] if request.scheduler else (type(own), {})
    if request.prediction_type:
        options = {**options, "prediction_type": request.prediction_type}
    if request.rescale_betas_snr_zero:
        options = {**options, "rescale_betas_zero_snr": True}
    return kind.from_config(own.config, **options)


def longest_schedule(scheduler: SchedulerMixin) -> int:
    """How many steps a schedule may have at most.

    With leading spacing DPM-Solver divides the training steps by one more than the schedule's: of as many steps as
    the training's, diffusers puts every one at the same timestep, and the latents are NaN.
    """
    is_dpm_solver = isinstance(scheduler, DPMSolverMultistepScheduler)
    steps: int = scheduler.config.num_train_timesteps
    return steps - 1 if is_dpm_solver and scheduler.config.timestep_spacing == "leading" else steps


def make_room(scheduler: SchedulerMixin, schedule_steps: int) -> None:
    """LCM and TCD pick their timesteps from an original schedule that must hold at least `schedule_steps`."""
    if "original_inference_steps" in scheduler.config:
        original = max(scheduler.config.original_inference_steps, schedule_steps)
        scheduler.register_to_config(original_inference_steps=original)
