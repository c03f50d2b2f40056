"""Checks a checkpoint's scheduler configuration, which is as hostile as the rest, before torch sees it."""

from __future__ import annotations

from typing import Any

# The schedulers that a checkpoint may bring as its own.
OWN_SCHEDULERS = ("PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
_MAX_TRAIN_TIMESTEPS = 10_000


class ScheduleError(ValueError):
    """The configuration cannot be used; the message is fit for the client."""


def check_schedule(config: dict[str, Any], *, own: bool) -> None:
    """Raises ScheduleError. `own`: whether its own scheduler is used, not only its noise schedule."""
    if own and config.get("_class_name") not in OWN_SCHEDULERS:
        known = ", ".join(OWN_SCHEDULERS)
        raise ScheduleError(f"its scheduler {config.get('_class_name')!r} is none of {known}: set the field scheduler")
    steps = config.get("num_train_timesteps", 1000)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MAX_TRAIN_TIMESTEPS:
        raise ScheduleError(f"num_train_timesteps must be an integer from 1 to {_MAX_TRAIN_TIMESTEPS}")
    for name in ("beta_start", "beta_end"):
        beta = config.get(name, 0.01)
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < 1:
            raise ScheduleError(f"its scheduler's {name} must lie between 0 and 1")
    if config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction"):
        raise ScheduleError(f"its prediction_type {config.get('prediction_type')!r} is not served")
