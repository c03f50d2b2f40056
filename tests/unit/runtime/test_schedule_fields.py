"""A request without a possible schedule is refused before any file is read; the message names the field."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from lorikeet.schema import ImageToImageInput
from runtime.schedulers.check_schedule import check_sampler, check_schedule
from runtime.stage_errors import InvalidArgument
from tests.tiny.schedulers import SD15


def _request(**fields: Any) -> ImageToImageInput:
    for name in ("timesteps", "sigmas"):
        if name in fields:
            fields[name] = {"method": "array", "array": fields[name]}
    return ImageToImageInput.model_validate({"model_name": "m", "prompt": "p"} | fields)


def _refused(match: str, config: dict[str, Any] | None = None, has_image: bool = False, **fields: Any) -> None:
    with pytest.raises(InvalidArgument, match=match):
        check_schedule(_request(**fields), SD15 | (config or {}), has_image=has_image)


def _accepted(config: dict[str, Any] | None = None, has_image: bool = False, **fields: Any) -> None:
    check_schedule(_request(**fields), SD15 | (config or {}), has_image=has_image)


WITH_TIMESTEPS = (
    r"DPM\+\+ 2M, DPM\+\+ 2M SDE, Euler, Euler \(trailing timesteps\), LCM, LCM \(trailing timesteps\), TCD$"
)


@pytest.mark.parametrize("scheduler", ["DPM++ 2M Karras", "DPM++ 2M SDE Karras", "Euler A", "DDIM"])
def test_refused_timesteps_name_the_samplers_that_support_them(scheduler: str) -> None:
    request = _request(scheduler=scheduler, timesteps=[900, 500])
    with pytest.raises(
        InvalidArgument,
        match=r"^timesteps: .* cannot use this field; remove it or set scheduler to one of: " + WITH_TIMESTEPS,
    ):
        check_sampler(request, {})


def test_the_checkpoints_own_scheduler_can_refuse_fields() -> None:
    _refused(r"^timesteps: the checkpoint's own PNDMScheduler cannot .*" + WITH_TIMESTEPS, timesteps=[900, 500])
    _refused(r"^sigmas: .*: Euler, Euler \(trailing timesteps\)$", scheduler=None, sigmas=[9.0, 0.0])
    _refused(r"^rescale_betas_snr_zero: .*: DPM\+\+ 2M, .*, TCD$", rescale_betas_snr_zero=True)


def test_a_checkpoints_options_can_refuse_timesteps() -> None:
    karras = {"use_karras_sigmas": True}
    _refused(r"^timesteps: Euler cannot .*: DPM\+\+ 2M, DPM\+\+ 2M SDE, LCM", karras, scheduler="Euler", timesteps=[9])
    _accepted(karras, scheduler="DPM++ 2M", timesteps=[9])


@pytest.mark.parametrize("scheduler", ["DPM++ 2M", "DPM++ 2M SDE Karras", "Euler A", "LCM", "DDIM", "TCD"])
def test_refused_sigmas_name_the_samplers_that_support_them(scheduler: str) -> None:
    _refused(r"^sigmas: .*: Euler, Euler \(trailing timesteps\)$", scheduler=scheduler, sigmas=[9.0, 0.0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([5, 5], r"^timesteps: array must descend; array\[1\] is not below array\[0\]$"),
        ([9, 5, 7], r"^timesteps: array must descend; array\[2\] is not below array\[1\]$"),
        ([1000], r"^timesteps: array\[0\] must be below 1000"),
        ([10**30, 1], r"^timesteps: array\[0\] must be below 1000"),
    ],
)
def test_timesteps_descend_below_the_number_of_training_steps(array: list[int], message: str) -> None:
    _refused(message, scheduler="LCM", timesteps=array)
    _accepted(scheduler="LCM", timesteps=[999, 998, 0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([5.0, 5.0, 0.0], r"^sigmas: array must descend; array\[1\] is not below array\[0\]$"),
        ([1.0, 2.0], r"^sigmas: array must descend"),
        ([2.0], "^sigmas: array must have at least two values"),
        ([1e30, 1.0], "^sigmas: array values must be from"),
        ([1.0, 1e-50, 0.0], "^sigmas: array values must be from"),
    ],
)
def test_sigmas_descend_within_the_range_of_float32(array: list[float], message: str) -> None:
    _refused(message, scheduler="Euler", sigmas=array)
    _accepted(scheduler="Euler", sigmas=[14.615, 0.1, 0.0])
    _accepted(scheduler="Euler", sigmas=[14.615, 0.1])


def test_a_strength_that_runs_no_step_is_refused() -> None:
    _refused(
        "^timesteps: noise_strength 0.3 runs 0 of its 3 steps; set noise_strength to 1/3 or more",
        None,
        True,
        scheduler="LCM",
        timesteps=[9, 5, 1],
        noise_strength=0.3,
    )
    _refused("^sigmas: noise_strength 0.5 runs 0 of its 1 steps", None, True, scheduler="Euler", sigmas=[9.0, 1.0])
    _accepted(None, True, scheduler="LCM", timesteps=[9, 5, 1], noise_strength=0.34)
    _accepted(None, True, scheduler="LCM", timesteps=[9, 5, 1], noise_strength=0)
    _accepted(None, False, scheduler="LCM", timesteps=[9, 5, 1], noise_strength=0.3)


def test_more_steps_than_training_steps_are_refused() -> None:
    short = {"num_train_timesteps": 40, "timestep_spacing": "leading"}
    _refused("^num_inference_steps: .* runs at most 40 steps with", short, num_inference_steps=41)
    _accepted(short, num_inference_steps=40)
    _refused("^num_inference_steps: DPM.* runs at most 39 steps", short, scheduler="DPM++ 2M", num_inference_steps=40)


def test_the_checks_do_not_import_torch() -> None:
    code = "import sys, runtime.stages.prepare.stage; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
