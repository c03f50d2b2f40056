"""The samplers' tables agree with the signatures of diffusers."""

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
SIGMA_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
)


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@every_class
def test_the_tables_agree_with_the_signatures(name: str) -> None:
    cls = getattr(diffusers, name)
    sampler = Sampler(name, name)
    assert sampler.takes_timesteps == ("timesteps" in _parameters(cls.set_timesteps))
    assert sampler.takes_sigmas == ("sigmas" in _parameters(cls.set_timesteps))
    assert sampler.takes_eta == ("eta" in _parameters(cls.step))
    assert sampler.takes_zero_snr == ("rescale_betas_zero_snr" in _parameters(cls))
    assert sampler.train_timesteps == inspect.signature(cls).parameters["num_train_timesteps"].default
    # With a higher order, the progress would count more UNet calls than num_inference_steps.
    assert cls.order == 1


@every_class
@pytest.mark.parametrize("option", SIGMA_OPTIONS)
def test_timesteps_are_refused_when_diffusers_refuses_them(name: str, option: str) -> None:
    cls = getattr(diffusers, name)
    try:
        cls.from_config({option: True}).set_timesteps(timesteps=[900, 500, 20])
        accepted = True
    except (ValueError, TypeError, ImportError):
        accepted = False
    assert Sampler(name, name, {option: True}).takes_timesteps == accepted


@pytest.mark.parametrize("timestep_type", ["continuous", "discrete"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_continuous_timesteps_with_v_prediction_refuse_custom_timesteps(
    timestep_type: str, prediction_type: str
) -> None:
    config = {"timestep_type": timestep_type, "prediction_type": prediction_type}
    sampler = find_sampler(SchedulerName.EULER, config)
    assert sampler.takes_timesteps == (config != {"timestep_type": "continuous", "prediction_type": "v_prediction"})


@pytest.mark.parametrize("name", SchedulerName)
def test_a_name_is_the_scheduler_of_the_reference(name: SchedulerName) -> None:
    kind, options = SCHEDULERS[name.value]
    sampler = find_sampler(name, SD15)
    assert (sampler.name, sampler.class_name) == (name.value, kind.__name__)
    mine, theirs = (kind.from_config(config).config for config in (sampler.config, SD15 | options))
    assert {key: mine[key] for key in _parameters(kind)} == {key: theirs[key] for key in _parameters(kind)}


@pytest.mark.parametrize("option", [*SIGMA_OPTIONS, "solver_order", "algorithm_type"])
def test_a_name_that_chooses_its_sigmas_overrides_the_checkpoint(option: str) -> None:
    """With a checkpoint whose scheduler is "DPM++ 3M SDE Karras", the name "DPM++ 2M" is unchanged."""
    other = {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}.get(option, True)
    assert (
        find_sampler(SchedulerName.DPMPP_2M, {option: other}).config == find_sampler(SchedulerName.DPMPP_2M, {}).config
    )


def test_other_names_keep_the_sigmas_of_the_checkpoint() -> None:
    assert find_sampler(SchedulerName.EULER, {"use_karras_sigmas": True}).config["use_karras_sigmas"]
    assert find_sampler(SchedulerName.EULER, SDXL).config["timestep_spacing"] == "leading"
    assert find_sampler(SchedulerName.EULER_TRAILING, SDXL).config["timestep_spacing"] == "trailing"


def test_no_name_is_the_checkpoints_own_scheduler() -> None:
    sampler = find_sampler(None, SD15)
    assert (sampler.name, sampler.class_name) == ("the checkpoint's own PNDMScheduler", "PNDMScheduler")
    assert sampler.config == SD15


def test_the_requests_options_override_the_checkpoints() -> None:
    sampler = find_sampler(SchedulerName.EULER_TRAILING, SDXL, prediction_type="v_prediction")
    assert sampler.config["prediction_type"] == "v_prediction"
    assert SDXL["prediction_type"] == "epsilon"


def test_dpm_solvers_leading_spacing_has_one_step_fewer() -> None:
    spaced = {"timestep_spacing": "leading", "num_train_timesteps": 500}
    assert find_sampler(SchedulerName.DPMPP_2M, spaced).max_steps == 499
    assert find_sampler(SchedulerName.DPMPP_2M, spaced | {"timestep_spacing": "trailing"}).max_steps == 500
    assert find_sampler(SchedulerName.DDIM, spaced).max_steps == 500
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(spaced)
    for length, different in ((500, 1), (499, 499)):
        scheduler.set_timesteps(length)
        assert len(scheduler.timesteps.unique()) == different
