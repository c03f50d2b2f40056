"""The tables of what a sampler can do say what diffusers' signatures say."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest

from lorikeet.schema import SchedulerName
from runtime.schedulers.samplers import CLASSES, Sampler, find_sampler
from tests.reference.schedulers import SCHEDULERS
from tests.tiny.schedulers import SD15, SDXL

every_class = pytest.mark.parametrize("name", CLASSES)
OWN_SIGMAS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@every_class
def test_what_a_class_takes(name: str) -> None:
    cls = getattr(diffusers, name)
    sampler = Sampler(name, name)
    assert sampler.takes_timesteps == ("timesteps" in _parameters(cls.set_timesteps))
    assert sampler.takes_sigmas == ("sigmas" in _parameters(cls.set_timesteps))
    assert sampler.takes_eta == ("eta" in _parameters(cls.step))
    assert sampler.takes_zero_snr == ("rescale_betas_zero_snr" in _parameters(cls))
    assert sampler.train_timesteps == inspect.signature(cls).parameters["num_train_timesteps"].default
    # Otherwise progress would count calls of the UNet that nobody asked for.
    assert cls.order == 1


@every_class
@pytest.mark.parametrize("option", OWN_SIGMAS)
def test_timesteps_are_ruled_out_where_diffusers_refuses_them(name: str, option: str) -> None:
    cls = getattr(diffusers, name)
    try:
        cls.from_config({option: True}).set_timesteps(timesteps=[900, 500, 20])
        taken = True
    except (ValueError, TypeError, ImportError):
        taken = False
    assert Sampler(name, name, {option: True}).takes_timesteps == taken


@pytest.mark.parametrize("timestep_type", ["continuous", "discrete"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_continuous_timesteps_rule_them_out(timestep_type: str, prediction_type: str) -> None:
    config = {"timestep_type": timestep_type, "prediction_type": prediction_type}
    sampler = find_sampler(SchedulerName.EULER, config)
    assert sampler.takes_timesteps == (config != {"timestep_type": "continuous", "prediction_type": "v_prediction"})


@pytest.mark.parametrize("name", SchedulerName)
def test_a_name_means_what_the_oracle_takes_it_for(name: SchedulerName) -> None:
    kind, options = SCHEDULERS[name.value]
    sampler = find_sampler(name, SD15)
    assert (sampler.name, sampler.class_name) == (name.value, kind.__name__)
    mine, theirs = (kind.from_config(config).config for config in (sampler.config, SD15 | options))
    assert {key: mine[key] for key in _parameters(kind)} == {key: theirs[key] for key in _parameters(kind)}


@pytest.mark.parametrize("option", [*OWN_SIGMAS, "solver_order", "algorithm_type"])
def test_a_name_that_speaks_of_its_sigmas_is_not_overruled_by_the_checkpoint(option: str) -> None:
    """A checkpoint whose own is "DPM++ 3M SDE Karras" still has a plain "DPM++ 2M"."""
    other = {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}.get(option, True)
    assert (
        find_sampler(SchedulerName.DPMPP_2M, {option: other}).config == find_sampler(SchedulerName.DPMPP_2M, {}).config
    )


def test_a_name_that_does_not_keeps_those_of_the_checkpoint() -> None:
    assert find_sampler(SchedulerName.EULER, {"use_karras_sigmas": True}).config["use_karras_sigmas"]
    assert find_sampler(SchedulerName.EULER, SDXL).config["timestep_spacing"] == "leading"
    assert find_sampler(SchedulerName.EULER_TRAILING, SDXL).config["timestep_spacing"] == "trailing"


def test_no_name_is_the_checkpoints_own() -> None:
    sampler = find_sampler(None, SD15)
    assert (sampler.name, sampler.class_name) == ("the checkpoint's own PNDMScheduler", "PNDMScheduler")
    assert sampler.config == SD15


def test_what_the_request_gives_wins() -> None:
    sampler = find_sampler(SchedulerName.EULER_TRAILING, SDXL, prediction_type="v_prediction")
    assert sampler.config["prediction_type"] == "v_prediction"
    assert SDXL["prediction_type"] == "epsilon"


def test_dpm_solvers_leading_spacing_has_one_step_less() -> None:
    spaced = {"timestep_spacing": "leading", "num_train_timesteps": 500}
    assert find_sampler(SchedulerName.DPMPP_2M, spaced).longest == 499
    assert find_sampler(SchedulerName.DPMPP_2M, spaced | {"timestep_spacing": "trailing"}).longest == 500
    assert find_sampler(SchedulerName.DDIM, spaced).longest == 500
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(spaced)
    for length, different in ((500, 1), (499, 499)):
        scheduler.set_timesteps(length)
        assert len(scheduler.timesteps.unique()) == different
