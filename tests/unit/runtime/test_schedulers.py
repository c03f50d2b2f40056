"""Schedules: as many steps as were asked for are run, and they are the last ones of diffusers' own schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from lorikeet.schema import SchedulerName
from runtime.checkpoints.schedule import ScheduleError
from runtime.schedulers import make_schedule
from tests.tiny.schedulers import SD15, SDXL
from tests.unit.runtime.engines import noise

# What the API's name means in diffusers' terms, and how many calls of the UNet it adds: PNDM takes one step twice.
SAMPLERS: list[tuple[SchedulerName | None, type[Any], dict[str, Any], int]] = [
    (None, PNDMScheduler, {}, 1),
    (SchedulerName.EULER, EulerDiscreteScheduler, {}, 0),
    (SchedulerName.DPMPP_2M_KARRAS, DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, 0),
    (SchedulerName.DDIM, DDIMScheduler, {}, 0),
]
every_sampler = pytest.mark.parametrize(("name", "kind", "options", "extra"), SAMPLERS)
STEPS = (1, 2, 7, 30, 150)
STRENGTHS = (0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0)


def _diffusers(kind: type[Any], options: dict[str, Any], length: int) -> Any:
    scheduler = kind.from_config(SD15, **options)
    scheduler.set_timesteps(length)
    return scheduler


@every_sampler
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_last_steps_of_a_longer_schedule_are_run(
    name: SchedulerName | None, kind: type[Any], options: dict[str, Any], extra: int, steps: int, strength: float
) -> None:
    found = make_schedule(name, SD15, steps, strength).timesteps
    length = min(int(steps / strength), 1000)
    assert torch.equal(found, _diffusers(kind, options, length).timesteps[length - steps :])
    assert len(found) == steps + (extra if length > 1 else 0)


@every_sampler
@pytest.mark.parametrize("steps", STEPS)
def test_without_a_picture_the_whole_schedule_is_run(
    name: SchedulerName | None, kind: type[Any], options: dict[str, Any], extra: int, steps: int
) -> None:
    schedule = make_schedule(name, SD15, steps, None)
    assert torch.equal(schedule.timesteps, _diffusers(kind, options, steps).timesteps)
    start = noise(1, 4, 2, 2)
    assert torch.equal(schedule.pure_noise(start), start * _diffusers(kind, options, steps).init_noise_sigma)


@every_sampler
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_a_course_of_steps_is_that_of_diffusers(
    name: SchedulerName | None, kind: type[Any], options: dict[str, Any], extra: int, strength: float
) -> None:
    """As diffusers' image-to-image pipeline takes it, for a network that answers half of what it is shown."""
    steps, length = 6, int(6 / strength)
    clean, added = noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1)
    schedule, own = make_schedule(name, SD15, steps, strength), _diffusers(kind, options, length)
    begin = length - steps
    if hasattr(own, "set_begin_index"):
        own.set_begin_index(begin)
    timesteps = own.timesteps[begin:]
    mine, theirs = schedule.add_noise(clean, added), own.add_noise(clean, added, timesteps[:1])
    generator = torch.Generator()
    for timestep in timesteps:
        mine = schedule.step(schedule.scale(mine, timestep) / 2, timestep, mine, generator)
        theirs = own.step(own.scale_model_input(theirs, timestep) / 2, timestep, theirs).prev_sample
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (SD15, PNDMScheduler),
        (SDXL, EulerDiscreteScheduler),
        (SD15 | {"_class_name": "DDIMScheduler"}, DDIMScheduler),
        (SD15 | {"_class_name": "DPMSolverMultistepScheduler"}, DPMSolverMultistepScheduler),
    ],
)
def test_no_name_takes_the_checkpoints_own(config: dict[str, Any], kind: type[Any]) -> None:
    assert type(make_schedule(None, config, 5, 0.5).scheduler) is kind


def test_a_named_scheduler_keeps_the_checkpoints_noise() -> None:
    config = SD15 | {"beta_start": 0.001, "prediction_type": "v_prediction"}
    found = make_schedule(SchedulerName.DDIM, config, 5, 0.5).scheduler.config
    assert (found.beta_start, found.prediction_type, found.beta_schedule) == (0.001, "v_prediction", "scaled_linear")


@pytest.mark.parametrize(
    "values",
    [
        {"beta_schedule": "evil"},
        {"trained_betas": "evil"},
        {"timestep_spacing": "evil"},
    ],
)
@pytest.mark.parametrize("name", [sampler[0] for sampler in SAMPLERS])
def test_a_configuration_of_which_no_schedule_can_be_made_is_an_error(
    name: SchedulerName | None, values: dict[str, Any]
) -> None:
    with pytest.raises(ScheduleError, match="its scheduler cannot run 7 steps"):
        make_schedule(name, SD15 | values, 7, 0.5)
