"""A schedule runs the requested number of steps, the last ones of diffusers' schedule, or the request is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
)
from hypothesis import example, given
from hypothesis import strategies as st

from lorikeet.schema import ImageToImageInput, SchedulerName
from runtime.checkpoints.scheduler_config import ScheduleError, read_schedule
from runtime.schedulers.check_schedule import check_schedule, most_steps
from runtime.schedulers.schedule import Schedule, make_schedule
from runtime.stage_errors import InvalidArgument
from tests.tiny.schedulers import SD15, SDXL
from tests.unit.runtime.engines import noise
from tests.unit.runtime.stand_in import answer

STEPS = (1, 2, 7, 30, 150)
STRENGTHS = (0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0)
OWN = (
    PNDMScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    DPMSolverMultistepScheduler,
    LCMScheduler,
    TCDScheduler,
)


def _request(steps: int = 30, strength: float = 0.5, **fields: Any) -> ImageToImageInput:
    given = {"model_name": "m", "prompt": "p", "num_inference_steps": steps, "noise_strength": strength}
    return ImageToImageInput.model_validate(given | fields)


def _run(schedule: Schedule) -> torch.Tensor:
    latents, generator = noise(1, 4, 2, 2), torch.Generator()
    for timestep in schedule.timesteps:
        shown = schedule.scale(latents, timestep)
        latents = schedule.step(answer(shown, timestep), timestep, latents, generator)
    return latents


@pytest.mark.parametrize("scheduler", [name.value for name in SchedulerName])
@pytest.mark.parametrize("strength", [0.5, None])
def test_latents_may_be_on_another_device_than_the_schedule(scheduler: str, strength: float | None) -> None:
    """A job on a GPU keeps its latents there. Of the schedule, only numbers take part, which any device accepts."""
    found = make_schedule(_request(4, strength or 0.5, scheduler=scheduler), SD15, has_image=strength is not None)
    latents, generator = torch.zeros(1, 4, 2, 2, device="meta"), torch.Generator()
    for timestep in found.timesteps:
        shown = found.scale(latents, timestep)
        assert shown.is_meta
        latents = found.step(shown * 0.5, timestep, latents, generator)
        assert latents.is_meta


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_last_steps_of_the_checkpoints_own_scheduler_are_run(kind: type[Any], steps: int, strength: float) -> None:
    config = SD15 | {"_class_name": kind.__name__}
    found = make_schedule(_request(steps, strength), config, has_image=True)
    assert type(found.scheduler) is kind
    length, own = min(int(steps / strength), 1000), kind.from_config(config)
    if kind in (LCMScheduler, TCDScheduler):
        own.register_to_config(original_inference_steps=max(50, length))
    own.set_timesteps(length)
    assert torch.equal(found.timesteps, own.timesteps[length - steps :])
    assert len(found.timesteps) == steps + (kind is PNDMScheduler and length > 1)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("steps", [7, 30, 150])
def test_the_steps_of_pndm_are_counted(steps: int, skips: bool) -> None:
    config = SD15 | {"skip_prk_steps": skips}
    found = make_schedule(_request(steps), config, has_image=False)
    assert len(found.timesteps) == most_steps(_request(steps), config, has_image=False)


CUSTOM: list[dict[str, Any]] = [
    {"scheduler": "Euler", "sigmas": {"method": "array", "array": [14.0, 9.0, 5.0, 2.0, 1.0, 0.0]}},
    *(
        {"scheduler": name, "timesteps": {"method": "array", "array": [900, 700, 500, 300, 100]}}
        for name in ("Euler", "DPM++ 2M", "LCM", "TCD")
    ),
]


@pytest.mark.parametrize("fields", CUSTOM)
@pytest.mark.parametrize(("strength", "steps"), [(None, 5), (1.0, 5), (0.7, 3)])
def test_a_custom_schedule_has_the_steps_that_are_counted_before(
    fields: dict[str, Any], strength: float | None, steps: int
) -> None:
    request, has_image = _request(1, strength or 0.5, **fields), strength is not None
    assert most_steps(request, SD15, has_image=has_image) == steps
    assert len(make_schedule(request, SD15, has_image=has_image).timesteps) == steps


@pytest.mark.parametrize("config", [SD15, SDXL])
def test_without_a_name_the_checkpoints_own_scheduler_is_used(config: dict[str, Any]) -> None:
    assert type(make_schedule(_request(), config, has_image=False).scheduler).__name__ == config["_class_name"]


def test_a_named_scheduler_keeps_the_checkpoints_noise_schedule() -> None:
    config = SD15 | {"beta_start": 0.001, "prediction_type": "v_prediction"}
    found = make_schedule(_request(scheduler="DDIM"), config, has_image=True).scheduler.config
    assert (found.beta_start, found.prediction_type, found.beta_schedule) == (0.001, "v_prediction", "scaled_linear")


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DDIMScheduler])
@pytest.mark.parametrize("strength", [None, 0.7])
def test_a_trailing_schedule_has_no_extra_step(kind: type[Any], strength: float | None) -> None:
    """By rounding, np.arange(1000, 0, -1000 / 61) has 62 elements; diffusers then runs the UNet at timestep -1."""
    steps = 61 if strength is None else 85  # of 121 at 0.7
    config = SD15 | {"_class_name": kind.__name__, "timestep_spacing": "trailing"}
    found = make_schedule(_request(steps, strength or 0.5), config, has_image=strength is not None)
    own = kind.from_config(config)
    length = 61 if strength is None else 121
    own.set_timesteps(length)
    assert (len(own.timesteps), int(own.timesteps[-1])) == (length + 1, -1)
    assert torch.equal(found.timesteps, own.timesteps[length - steps : -1])
    assert len(found.timesteps) == steps
    if kind is not DDIMScheduler:
        assert torch.equal(found.scheduler.sigmas[:-1], own.sigmas[:-2])
        assert found.scheduler.sigmas[-1] == 0
    assert _run(found).isfinite().all()


@pytest.mark.parametrize("scheduler", ["DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras"])
def test_the_longest_leading_schedule_of_dpm_solver_stays_finite(scheduler: str) -> None:
    """With 1000 steps, all of diffusers' timesteps are 1 and the latents are NaN."""
    found = make_schedule(_request(150, 0.05, scheduler=scheduler), SDXL, has_image=True)
    assert len(found.timesteps) == 150
    assert _run(found).isfinite().all()


def test_a_division_by_a_zero_signal_to_noise_ratio_is_refused() -> None:
    fields: dict[str, Any] = {"scheduler": "LCM", "rescale_betas_snr_zero": True}
    with pytest.raises(
        InvalidArgument, match=r"^rescale_betas_snr_zero: LCM cannot run this schedule .*finite\); set it to false or"
    ):
        make_schedule(_request(4, **fields), SD15, has_image=False)
    with_v_prediction = make_schedule(_request(4, prediction_type="v_prediction", **fields), SD15, has_image=False)
    assert _run(with_v_prediction).isfinite().all()


ZERO_SNR = SD15 | {"rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("config", "fields", "field"),
    [
        (ZERO_SNR, {"scheduler": "LCM"}, "scheduler"),
        (ZERO_SNR | {"_class_name": "LCMScheduler"}, {}, "model_name"),
        (
            ZERO_SNR | {"timestep_spacing": "trailing"},
            {"scheduler": "DDIM", "eta": 1.0, "prediction_type": "v_prediction"},
            "eta",
        ),
        (ZERO_SNR, {"scheduler": "LCM", "eta": 1.0}, "scheduler"),
        (
            ZERO_SNR | {"prediction_type": "v_prediction"},
            {"scheduler": "LCM", "prediction_type": "epsilon"},
            "prediction_type",
        ),
    ],
)
def test_the_error_names_a_field_without_which_the_schedule_is_run(
    config: dict[str, Any], fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}: "):
        make_schedule(_request(30, **fields), config, has_image=False)


@pytest.mark.parametrize("scheduler", ["DPM++ 2M Karras", "DPM++ 2M SDE Karras"])
@pytest.mark.parametrize("config", [SD15, SDXL])
@pytest.mark.parametrize("steps", [8, 25, 30, 150])
def test_a_schedule_whose_first_timesteps_are_equal_is_run_from_its_first_step(
    scheduler: str, config: dict[str, Any], steps: int
) -> None:
    """Without set_begin_index, diffusers begins at the second one and reads behind its last sigma."""
    request = _request(steps, scheduler=scheduler, rescale_betas_snr_zero=True)
    found = make_schedule(request, config, has_image=False)
    assert len(found.timesteps) == steps
    assert (found.timesteps[0] == found.timesteps[1]) == (steps > 20)
    own = DPMSolverMultistepScheduler.from_config(found.scheduler.config)
    own.set_timesteps(steps)
    own.set_begin_index(0)
    assert torch.equal(_run(found), _run(Schedule(own, own.timesteps, 0.0)))


@pytest.mark.parametrize("scheduler", [None, *SchedulerName])
@pytest.mark.parametrize("config", [SD15, SDXL])
def test_without_a_picture_the_latents_equal_those_of_diffusers(
    scheduler: SchedulerName | None, config: dict[str, Any]
) -> None:
    """diffusers' text-to-image pipelines do not call set_begin_index."""
    found = make_schedule(_request(30, scheduler=scheduler), config, has_image=False)
    own = type(found.scheduler).from_config(found.scheduler.config)
    own.set_timesteps(30)
    assert torch.equal(found.timesteps, own.timesteps)
    assert torch.equal(_run(found), _run(Schedule(own, own.timesteps, 0.0)))


def test_the_dry_run_does_not_change_the_schedule() -> None:
    """The steps equal those of a scheduler without a dry run."""
    schedule = make_schedule(_request(5, 0.5, scheduler="DPM++ 2M"), SD15, has_image=True)
    own = DPMSolverMultistepScheduler.from_config(SD15)
    own.set_timesteps(10)
    own.set_begin_index(5)
    latents = noise(1, 4, 2, 2)
    for timestep in own.timesteps[5:]:
        latents = own.step(answer(latents, timestep), timestep, latents).prev_sample
    assert torch.equal(_run(schedule), latents)


def test_two_schedules_of_one_request_draw_the_same_noise() -> None:
    request = _request(5, 0.5, scheduler="DPM++ 2M SDE", num_images=2)
    assert torch.equal(*(_run(make_schedule(request, SD15, has_image=True)) for _ in range(2)))


@pytest.mark.parametrize("name", [None, *SchedulerName])
@given(
    training=st.integers(1, 60) | st.sampled_from([333, 999, 1001, 1100]),
    steps=st.integers(1, 150),
    strength=st.floats(0.01, 1) | st.sampled_from([5e-324]),
    has_image=st.booleans(),
    spacing=st.sampled_from(["leading", "linspace", "trailing"]),
)
@example(training=333, steps=33, strength=0.40625, has_image=True, spacing="trailing")  # np.arange gives 82, not 81
def test_an_unusual_number_of_training_steps_is_run_in_full_or_refused(
    name: SchedulerName | None, training: int, steps: int, strength: float, has_image: bool, spacing: str
) -> None:
    config = SD15 | {"num_train_timesteps": training, "timestep_spacing": spacing}
    request = _request(steps, strength, scheduler=name)
    try:
        check_schedule(request, config, has_image=has_image)
        schedule = make_schedule(request, config, has_image=has_image)
    except InvalidArgument as error:
        assert "cannot run this schedule" in str(error) or steps > training - 1
        return
    assert steps <= len(schedule.timesteps) <= steps + (name is None)
    assert len(schedule.timesteps) <= most_steps(request, config, has_image=has_image)
    assert _run(schedule).isfinite().all()


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), np.nan, np.inf, -np.inf, "1000", "", [], {}, [0.1] * 1000, [np.nan] * 1000]),
    st.sampled_from(["leading", "trailing", "linspace", "linear", "log_linear", "squaredcos_cap_v2", "sample", "zero"]),
    st.sampled_from(["sigma_min", "continuous", "dpmsolver", "sde-dpmsolver", "heun", "learned", "bh2", "deis"]),
)
KNOWN = sorted({key for kind in OWN for key in kind().config if not key.startswith("_")})


@given(
    kind=st.sampled_from(OWN),
    values=st.dictionaries(st.sampled_from([*KNOWN, "_use_default_values", "_class_name"]), HOSTILE, max_size=3),
    name=st.none() | st.sampled_from(list(SchedulerName)),
    has_image=st.booleans(),
)
def test_a_hostile_configuration_is_run_in_full_or_refused(
    kind: type[Any], values: dict[str, Any], name: SchedulerName | None, has_image: bool
) -> None:
    """Only a ScheduleError or an InvalidArgument is raised, and the latents stay finite."""
    request = _request(3, 0.6, scheduler=name)
    try:
        config = read_schedule(SD15 | {"_class_name": kind.__name__} | values, "sd", own=name is None)
        check_schedule(request, config, has_image=has_image)
        schedule = make_schedule(request, config, has_image=has_image)
    except (ScheduleError, InvalidArgument) as error:
        assert len(str(error)) < 600
        return
    assert len(schedule.timesteps) <= most_steps(request, config, has_image=has_image)
    assert _run(schedule).isfinite().all()
