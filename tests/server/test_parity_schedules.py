"""All eleven schedulers, at every length, and the fields that change a schedule. `parity` says what is compared."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet

from lorikeet.schema import SchedulerName
from tests.server.parity import TEXT_TO_IMAGE, Answers, Change, Report, Row, check, fields, loras, row, rows

SCHEDULERS = [name.value for name in SchedulerName]
# How a step adds noise: by itself, or as eta says.
NOISY: dict[str, float] = {
    "DPM++ 2M SDE": 0.0,
    "DPM++ 2M SDE Karras": 0.0,
    "Euler A": 0.0,
    "LCM": 0.0,
    "LCM (trailing timesteps)": 0.0,
    "DDIM": 0.7,
    "TCD": 0.7,
}
LENGTHS: dict[str, tuple[Change, ...]] = {
    "30_at_0.5": (fields(num_inference_steps=30, noise_strength=0.5),),
    "30_at_0.8": (fields(num_inference_steps=30, noise_strength=0.8),),
    "6_at_0.37": (fields(num_inference_steps=6, noise_strength=0.37),),
    "150_at_0.05": (fields(num_inference_steps=150, noise_strength=0.05),),
    "8_at_1": (fields(num_inference_steps=8, noise_strength=1.0),),
    "text_to_image": (TEXT_TO_IMAGE,),
}
SHORTER = [name for name in LENGTHS if not name.startswith("150")]
TIMESTEPS = (951, 700, 512, 333, 201, 60, 3)
SIGMAS = (14.615, 6.475, 3.861, 1.886, 0.652, 0.152, 0.0)
SCHEDULES: dict[str, tuple[Change, ...]] = {
    "timesteps": (fields(timesteps=TIMESTEPS),),
    "timesteps_dpmpp_2m": (fields(scheduler="DPM++ 2M"), fields(timesteps=TIMESTEPS)),
    "timesteps_dpmpp_2m_sde": (fields(scheduler="DPM++ 2M SDE"), fields(timesteps=TIMESTEPS)),
    "timesteps_lcm": (fields(scheduler="LCM"), fields(timesteps=TIMESTEPS)),
    "timesteps_tcd": (fields(scheduler="TCD"), fields(timesteps=TIMESTEPS)),
    "timesteps_text_to_image": (TEXT_TO_IMAGE, fields(timesteps=TIMESTEPS)),
    "sigmas": (fields(sigmas=SIGMAS),),
    "sigmas_trailing": (fields(scheduler="Euler (trailing timesteps)"), fields(sigmas=SIGMAS)),
    "sigmas_text_to_image": (TEXT_TO_IMAGE, fields(sigmas=SIGMAS)),
    "eta_ddim": (fields(scheduler="DDIM"), fields(eta=0.6)),
    "eta_tcd": (fields(scheduler="TCD"), fields(eta=0.6)),
    "epsilon": (fields(prediction_type="v_prediction"), fields(prediction_type="epsilon")),
    "v_prediction": (fields(prediction_type="epsilon"), fields(prediction_type="v_prediction")),
    "zero_snr": (fields(prediction_type="v_prediction"), fields(rescale_betas_snr_zero=True)),
    "zero_snr_ddim": (
        fields(prediction_type="v_prediction", scheduler="DDIM"),
        fields(rescale_betas_snr_zero=True),
    ),
}


def switched_to(scheduler: str) -> tuple[Change, ...]:
    """From another scheduler, that is not the same by another name (as LCM and LCM trailing are)."""
    return fields(scheduler="DDIM" if scheduler == "Euler" else "Euler"), fields(scheduler=scheduler)


def at_every_length() -> list[ParameterSet]:
    """Each scheduler at each length; `make test` runs each scheduler at one length, and each length with one scheduler.

    SD 1.x predicts noise and SD 2.x v; SDXL's schedules are no others.
    """
    places = [*(("sd15", name) for name in LENGTHS), *(("sd2", name) for name in SHORTER)]
    assert len(places) == len(SCHEDULERS)
    return [
        row(f"{scheduler}-{length}-{kind}", kind, (fields(scheduler=scheduler), *LENGTHS[length]), verify=i != j)
        for i, scheduler in enumerate(SCHEDULERS)
        for j, (kind, length) in enumerate(places)
    ]


@pytest.mark.parametrize("row", rows({name: switched_to(name) for name in SCHEDULERS}))
def test_every_scheduler(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


WITH_LORAS = {name: (fields(scheduler=name), loras("peft", "kohya")) for name in SCHEDULERS}


@pytest.mark.parametrize("row", rows(WITH_LORAS, shift=1))
def test_every_scheduler_with_two_loras(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


WITH_NOISE = {name: (fields(scheduler=name, eta=eta), fields(num_images=2)) for name, eta in NOISY.items()}


@pytest.mark.parametrize("row", rows(WITH_NOISE, shift=2))
def test_noise_is_drawn_for_all_pictures_at_once(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


@pytest.mark.parametrize("row", at_every_length())
def test_every_scheduler_at_every_length(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


@pytest.mark.parametrize("row", rows(SCHEDULES))
def test_fields_that_change_the_schedule(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
