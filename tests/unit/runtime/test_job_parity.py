"""Jobs end where diffusers' own pipelines end, for every sampler, length and custom schedule of the API."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lorikeet.schema import SchedulerName
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stage_errors import InvalidArgument
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from tests.reference import ReferenceRequest, reference, relative_error
from tests.reference.pipelines import pipeline
from tests.tiny import tiny_folder
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.stand_in import StandIn, fake_bound, finish

pytestmark = pytest.mark.filterwarnings("ignore:You have passed 2 text prompts")

TOLERANCE = 1e-5
CLEARLY = 1e-3
SIDE = 32
SAMPLERS = [name.value for name in SchedulerName]
DRAWING = ["DPM++ 2M SDE", "DPM++ 2M SDE Karras", "Euler A", "LCM", "LCM (trailing timesteps)"]
every_sampler = pytest.mark.parametrize("scheduler", SAMPLERS)
# (num_inference_steps, noise_strength); None is text-to-image.
LENGTHS = [(30, 0.5), (30, 0.8), (6, 0.37), (150, 0.05), (4, 1.0), (20, None)]


@cache
def _picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@cache
def _posterior(model: str) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad(), pipeline(tiny_folder() / model, (), image_to_image=True) as pipe:
        found = pipe.vae.encode(pipe.image_processor.preprocess(_picture())).latent_dist
    return found.mean, found.std


@cache
def _expected(request: ReferenceRequest, with_picture: bool) -> np.ndarray[Any, Any]:
    return reference(replace(request, image=_picture() if with_picture else None), StandIn()).latents


def _reference(checkpoint: Checkpoint, strength: float | None, **fields: Any) -> np.ndarray[Any, Any]:
    model = tiny_folder() / ("sdxl" if checkpoint.kind == "sdxl" else "sd15")
    size = {"width": SIDE, "height": SIDE} if strength is None else {"noise_strength": strength}
    # Unguided, since the stand-in reads no text.
    request = ReferenceRequest(model, "a bird", seed=5, guidance_scale=1.0, **size, **fields)
    return _expected(request, strength is not None)


def _job(checkpoint: Checkpoint, strength: float | None, **fields: Any) -> Job:
    for name in ("timesteps", "sigmas"):
        if name in fields:
            fields[name] = {"method": "array", "array": fields[name]}
    text, pooled = (80, 40) if checkpoint.kind == "sdxl" else (32, 0)
    mean, std = _posterior("sdxl" if checkpoint.kind == "sdxl" else "sd15")
    if strength is None:
        mean, std = mean[:0], std[:0]
    else:
        fields |= {"noise_strength": strength, "image_url": "tensor:0"}
    plan = make_plan(checkpoint, size=SIDE, guidance_scale=1.0, **fields)
    return Job(
        plan, Conditions(torch.zeros(1, 77, text), torch.zeros(1, pooled), mean, std), plan_schedule(plan), fake_bound()
    )


def _error(checkpoint: Checkpoint, strength: float | None, **fields: Any) -> float:
    """How far a job ends from where diffusers' pipeline does."""
    found = finish(_job(checkpoint, strength, **fields))
    return relative_error(found, _reference(checkpoint, strength, **fields))


@pytest.fixture(params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found: Checkpoint = request.getfixturevalue(request.param)
    return found


@every_sampler
@pytest.mark.parametrize(("steps", "strength"), LENGTHS)
def test_every_sampler_ends_where_diffusers_ends(
    checkpoint: Checkpoint, scheduler: str, steps: int, strength: float | None
) -> None:
    fields = {"scheduler": scheduler, "num_inference_steps": steps}
    job = _job(checkpoint, strength, **fields)
    assert relative_error(finish(job), _reference(checkpoint, strength, **fields)) < TOLERANCE
    assert job.steps_done == job.steps == steps


@pytest.mark.parametrize(("steps", "strength"), LENGTHS)
def test_the_checkpoints_own_ends_where_diffusers_ends(
    checkpoint: Checkpoint, steps: int, strength: float | None
) -> None:
    """SD 1.5's own, PNDM, asks the UNet once more than it is told."""
    assert _error(checkpoint, strength, num_inference_steps=steps) < TOLERANCE
    assert _job(checkpoint, strength, num_inference_steps=steps).steps == steps + (checkpoint.kind == "sd")


@pytest.mark.parametrize("strength", [0.5, None])
def test_no_two_samplers_are_the_same_but_those_of_lcm(sd15: Checkpoint, strength: float | None) -> None:
    """LCM lays its timesteps out by itself: its spacing makes no difference, in diffusers neither."""
    ends = [_reference(sd15, strength, scheduler=name, num_inference_steps=6) for name in SAMPLERS]
    same = {
        (SAMPLERS[one], SAMPLERS[other])
        for one in range(len(ends))
        for other in range(one)
        if relative_error(ends[one], ends[other]) < CLEARLY
    }
    assert same == {("LCM (trailing timesteps)", "LCM")}


@pytest.mark.parametrize("scheduler", DRAWING)
@pytest.mark.parametrize(("steps", "strength"), LENGTHS)
def test_what_a_step_draws_is_drawn_for_all_pictures_at_once(
    sd15: Checkpoint, scheduler: str, steps: int, strength: float | None
) -> None:
    fields = {"scheduler": scheduler, "num_inference_steps": steps}
    assert _error(sd15, strength, num_images=2, **fields) < TOLERANCE
    first, second = _reference(sd15, strength, num_images=2, **fields)
    assert relative_error(first, second) > CLEARLY
    assert relative_error(_reference(sd15, strength, **fields)[0], first) > CLEARLY


# Fields, the last of which is to make a difference, and the samplers that take them.
TIMESTEPS = (951, 700, 512, 333, 201, 60, 3)
SIGMAS = (14.615, 6.475, 3.861, 1.886, 0.652, 0.152, 0.0)
KARRAS = ["DPM++ 2M Karras", "DPM++ 2M SDE Karras"]
TAKE_TIMESTEPS = [name for name in SAMPLERS if name not in ("Euler A", "DDIM", *KARRAS)]
TAKE_SIGMAS = ["Euler", "Euler (trailing timesteps)"]
FIELDS: list[tuple[list[str], dict[str, Any]]] = [
    (TAKE_TIMESTEPS, {"timesteps": TIMESTEPS}),
    (TAKE_SIGMAS, {"sigmas": SIGMAS}),
    (TAKE_SIGMAS, {"sigmas": SIGMAS[:-1]}),
    (SAMPLERS, {"prediction_type": "v_prediction"}),
    (SAMPLERS, {"prediction_type": "v_prediction", "rescale_betas_snr_zero": True}),
    (["DPM++ 2M", "DPM++ 2M SDE Karras", "Euler", "Euler A", "DDIM"], {"rescale_betas_snr_zero": True}),
    (["DDIM", "TCD"], {"eta": 0.7}),
    (["DDIM", "TCD"], {"num_images": 2, "eta": 1.0}),
]


@pytest.mark.parametrize("strength", [0.6, None])
@pytest.mark.parametrize(
    ("scheduler", "fields"),
    [pytest.param(name, fields, id=f"{name}-{'-'.join(fields)}") for names, fields in FIELDS for name in names],
)
def test_every_field_of_the_schedule_does_what_it_does_in_diffusers(
    sd15: Checkpoint, scheduler: str, fields: dict[str, Any], strength: float | None
) -> None:
    fields = {"scheduler": scheduler, "num_inference_steps": 6} | fields
    assert _error(sd15, strength, **fields) < TOLERANCE
    *_, toggled = fields
    before = _reference(sd15, strength, **{name: value for name, value in fields.items() if name != toggled})
    after = _reference(sd15, strength, **fields)
    assert before.shape != after.shape or relative_error(after, before) > CLEARLY


@pytest.mark.parametrize("strength", [0.2, 0.3, 1.0])
@pytest.mark.parametrize("custom", [{"timesteps": TIMESTEPS}, {"sigmas": SIGMAS}])
def test_a_custom_schedule_is_cut_as_diffusers_cuts_it(
    sd15: Checkpoint, custom: dict[str, Any], strength: float
) -> None:
    fields = {"scheduler": "Euler", **custom}
    job = _job(sd15, strength, **fields)
    assert relative_error(finish(job), _reference(sd15, strength, **fields)) < TOLERANCE
    assert job.steps == int((7 if "timesteps" in custom else 6) * strength)


@pytest.mark.parametrize(
    ("scheduler", "prediction_type"),
    [(name, kind) for name in SAMPLERS for kind in ("epsilon", "v_prediction", "sample")],
)
def test_the_checkpoints_own_prediction_type(sd15: Checkpoint, scheduler: str, prediction_type: str) -> None:
    """What a checkpoint says is what a request would say (the oracle has no such checkpoint at hand)."""
    own = sd15.model_copy(update={"scheduler": sd15.scheduler | {"prediction_type": prediction_type}})
    if (scheduler, prediction_type) == ("Euler A", "sample"):
        with pytest.raises(InvalidArgument, match=r"scheduler: Euler A cannot run this schedule .*sample"):
            _job(own, 0.5, scheduler=scheduler)
        return
    found = finish(_job(own, 0.5, scheduler=scheduler, num_inference_steps=6))
    expected = _reference(sd15, 0.5, scheduler=scheduler, num_inference_steps=6, prediction_type=prediction_type)
    assert relative_error(found, expected) < TOLERANCE


def test_eta_is_nothing_to_a_sampler_that_takes_none(sd15: Checkpoint) -> None:
    fields = {"scheduler": "Euler A", "num_inference_steps": 6}
    assert torch.equal(finish(_job(sd15, 0.5, eta=1.0, **fields)), finish(_job(sd15, 0.5, **fields)))
    assert np.array_equal(_reference(sd15, 0.5, eta=1.0, **fields), _reference(sd15, 0.5, **fields))


def test_tcd_without_eta_draws_nothing(sd15: Checkpoint) -> None:
    """diffusers' pipelines always pass eta: the default of TCD's own, 0.3, has no effect there."""
    assert _error(sd15, None, scheduler="TCD", num_inference_steps=6, eta=0.0) < TOLERANCE
    assert _error(sd15, None, scheduler="TCD", num_inference_steps=6, eta=0.3) < TOLERANCE
    plain, drawn = (_reference(sd15, None, scheduler="TCD", num_inference_steps=6, eta=eta) for eta in (0.0, 0.3))
    assert relative_error(drawn, plain) > CLEARLY
