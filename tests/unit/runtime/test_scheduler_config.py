"""A checkpoint's scheduler configuration: what diffusers knows of it is read, what is hostile is refused."""

from __future__ import annotations

import inspect
import math
from typing import Any

import diffusers
import pytest
from diffusers import DDIMScheduler, StableDiffusionPipeline

from runtime.checkpoints.scheduler_config import ScheduleError, read_schedule
from runtime.schedulers.other_kinds import REPLACEABLE, other_kind
from runtime.schedulers.samplers import CLASSES
from tests.tiny import tiny_folder
from tests.tiny.schedulers import SD15, SDXL


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_scheduler_writes_is_read(name: str) -> None:
    """All of it, so that none of its options is lost, but the marks of the library and what no pipeline of SD uses."""
    config = dict(getattr(diffusers, name)().config) | {"_class_name": name}
    unused = {"use_dynamic_shifting", "time_shift_type"} | {key for key in config if key.startswith("_")}
    expected = {key: value for key, value in config.items() if key not in unused} | {"_class_name": name}
    assert read_schedule(config, "sdxl", own=True) == expected


def test_what_no_scheduler_knows_is_left_out() -> None:
    strange = {"solver_p": 5, "_use_default_values": 7, "_diffusers_version": [], "x" * 1000: {}}
    assert read_schedule(SDXL | strange, "sdxl", own=False) == read_schedule(SDXL, "sdxl", own=False)


def test_only_the_own_scheduler_must_be_known() -> None:
    config = SD15 | {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh2"}
    assert "_class_name" not in read_schedule(config, "sd", own=False)
    with pytest.raises(
        ScheduleError, match=r"'UniPCMultistepScheduler' is not supported; expected one of .*set the field scheduler"
    ):
        read_schedule(config, "sd", own=True)


OTHER_KINDS = {
    "EDMDPMSolverMultistepScheduler": "are trained on the EDM noise schedule",
    "EDMEulerScheduler": "are trained on the EDM noise schedule",
    "CosineDPMSolverMultistepScheduler": "are trained on another noise schedule",
    "FlowMatchEulerDiscreteScheduler": "are trained by flow matching",
    "FlowMatchHeunDiscreteScheduler": "are trained by flow matching",
    "FlowMatchLCMScheduler": "are trained by flow matching",
    "CMStochasticIterativeScheduler": "are consistency models",
    "SCMScheduler": "are consistency models",
    "VQDiffusionScheduler": "are trained on another noise schedule",
    "ScoreSdeVeScheduler": "are trained on another noise schedule",
}
BARE = ("CosineDPMSolverMultistepScheduler", "VQDiffusionScheduler")  # torchsde is not installed; no default


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("name", "kind"), OTHER_KINDS.items())
def test_a_scheduler_for_other_models_is_refused_whatever_replaces_it(name: str, kind: str, own: bool) -> None:
    written = {} if name in BARE else dict(getattr(diffusers, name)().config)
    with pytest.raises(ScheduleError, match=f"its scheduler '{name}' is configured for models that {kind}; .*another"):
        read_schedule(written | {"_class_name": name}, "sdxl", own=own)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("sigma_data", 0.5, "are trained on the EDM noise schedule"),
        ("use_flow_sigmas", True, "are trained by flow matching"),
    ],
)
def test_a_field_of_other_models_is_refused_too(field: str, value: Any, kind: str, own: bool) -> None:
    with pytest.raises(ScheduleError, match=kind):
        read_schedule(SDXL | {field: value}, "sdxl", own=own)


@pytest.mark.parametrize("name", [*CLASSES, *REPLACEABLE])
def test_a_class_with_betas_is_of_stable_diffusions_kind(name: str) -> None:
    cls = getattr(diffusers, name)
    if "dummy" not in cls.__module__:  # scipy and torchsde, which two classes need, are not installed
        assert "beta_start" in inspect.signature(cls).parameters
    assert other_kind({"_class_name": name}) is None
    assert name not in OTHER_KINDS


def test_another_class_with_betas_can_be_replaced() -> None:
    config = SDXL | {"_class_name": "MyScheduler"}
    assert "_class_name" not in read_schedule(config, "sdxl", own=False)
    with pytest.raises(ScheduleError, match="set the field scheduler to replace it"):
        read_schedule(config, "sdxl", own=True)


@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler")
def test_outdated_configurations_of_sd_are_mended_as_its_pipelines_mend_them() -> None:
    outdated = DDIMScheduler.from_config(SD15, steps_offset=0, clip_sample=True)
    given = dict(outdated.config)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder() / "sd15", scheduler=outdated)
    read = read_schedule(given, "sd", own=True)
    for name, value in {"steps_offset": 1, "clip_sample": False}.items():
        assert pipe.scheduler.config[name] == read[name] == value != given[name]
        assert read_schedule(given, "sdxl", own=True)[name] == given[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_class_name", None),
        ("_class_name", "../../evil"),
        ("_class_name", "StableDiffusionPipeline"),
        ("_class_name", ["PNDMScheduler"]),
        ("_class_name", "x" * 10**6),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", 10**9),
        ("num_train_timesteps", 10**400),
        ("num_train_timesteps", "1000"),
        ("num_train_timesteps", 1000.0),
        ("num_train_timesteps", True),
        ("num_train_timesteps", None),
        ("beta_start", 0),
        ("beta_start", -0.1),
        ("beta_end", 1),
        ("beta_end", math.nan),
        ("beta_end", math.inf),
        ("beta_end", 10**400),
        ("beta_end", "0.012"),
        ("beta_end", None),
        ("beta_schedule", "evil"),
        ("trained_betas", "evil"),
        ("trained_betas", [0.01] * 999),
        ("trained_betas", [0.01] * 20_000),
        ("trained_betas", [0.01] * 999 + [math.nan]),
        ("trained_betas", [0.01] * 999 + [[0.01]]),
        ("prediction_type", "flow_prediction"),
        ("prediction_type", 1),
        ("timestep_spacing", "evil"),
        ("steps_offset", -1),
        ("steps_offset", 10**9),
        ("original_inference_steps", 0),
        ("original_inference_steps", 10**9),
        ("timestep_scaling", math.inf),
        ("solver_order", 10**9),
        ("solver_order", 0),
        ("algorithm_type", "evil"),
        ("variance_type", "learned"),
        ("lambda_min_clipped", math.nan),
        ("lambda_min_clipped", math.inf),
        ("sigma_max", -1),
        ("thresholding", "yes"),
        ("sample_max_value", math.nan),
        ("use_karras_sigmas", 1),
    ],
)
def test_hostile_schedules_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ScheduleError, match="its scheduler" if name == "_class_name" else name) as caught:
        read_schedule(SD15 | {name: value}, "sd", own=True)
    assert len(str(caught.value)) < 600
