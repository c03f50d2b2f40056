"""A job: its draws, its rows and its steps are those of diffusers' pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from lorikeet.schema import SchedulerName
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.plan import Plan
from runtime.stages.denoiser.job import Conditions, Job
from tests.unit.runtime.engines import noise
from tests.unit.runtime.plans import make_plan

SIDE = 8
SCALING = {"sd": 0.18215, "sdxl": 0.13025}
PICTURE = {"image_url": "tensor:0"}


def _conditions(plan: Plan) -> Conditions:
    rows, width, pooled = 1 + plan.guided, (32, 0), (80, 40)
    text, extra = pooled if plan.checkpoint.kind == "sdxl" else width
    pictures = int(plan.has_image)
    mean, std = noise(pictures, 4, SIDE, SIDE, seed=3), noise(pictures, 4, SIDE, SIDE, seed=4).abs()
    return Conditions(noise(rows, 77, text, seed=1), noise(rows, extra, seed=2), mean, std)


def _job(checkpoint: Checkpoint, **fields: Any) -> tuple[Job, Conditions]:
    plan = make_plan(checkpoint, **fields)
    conditions = _conditions(plan)
    return Job(plan, conditions), conditions


def _finish(job: Job) -> None:
    """Step to the end, each row answered by half of its latent plus a little of its text."""
    while not job.done:
        job.advance([row.latent / 2 + row.text.mean() for row in job.rows])


@pytest.fixture(params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found: Checkpoint = request.getfixturevalue(request.param)
    return found


def test_the_posterior_is_drawn_first_and_the_noise_next(checkpoint: Checkpoint) -> None:
    job, given = _job(checkpoint, scheduler="Euler", num_inference_steps=4, num_images=3, **PICTURE)
    generator = torch.Generator().manual_seed(5)
    sample = given.mean + given.std * torch.randn(1, 4, SIDE, SIDE, generator=generator)
    drawn = torch.randn(3, 4, SIDE, SIDE, generator=generator)
    euler = EulerDiscreteScheduler.from_config(checkpoint.scheduler)
    euler.set_timesteps(8)  # 4 steps at strength 0.5
    expected = sample * SCALING[checkpoint.kind] + drawn * euler.sigmas[4]
    torch.testing.assert_close(job.latents, expected, rtol=1e-6, atol=1e-6)


def test_without_a_picture_all_is_noise(checkpoint: Checkpoint) -> None:
    job, _ = _job(checkpoint, scheduler="Euler", num_inference_steps=4, num_images=2)
    euler = EulerDiscreteScheduler.from_config(checkpoint.scheduler)
    euler.set_timesteps(4)
    drawn = torch.randn(2, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(job.latents, drawn * euler.init_noise_sigma)


def test_no_noise_is_the_vaes_round_trip(checkpoint: Checkpoint) -> None:
    job, given = _job(checkpoint, noise_strength=0, num_images=2, **PICTURE)
    assert (job.done, job.step, job.steps) == (True, 0, 0)
    assert torch.equal(job.latents, (given.mean * SCALING[checkpoint.kind]).repeat(2, 1, 1, 1))
    assert job.passes.shape == (0, 2, 4, SIDE, SIDE)


@pytest.mark.parametrize("scheduler", [name.value for name in SchedulerName])
@pytest.mark.parametrize(("steps", "strength"), [(1, 0.01), (3, 0.5), (5, 0.8), (4, 1.0)])
def test_as_many_steps_as_were_asked_for_are_run(sd15: Checkpoint, scheduler: str, steps: int, strength: float) -> None:
    job, _ = _job(sd15, scheduler=scheduler, num_inference_steps=steps, noise_strength=strength, **PICTURE)
    _finish(job)
    assert job.step == job.steps == steps
    assert job.latents.isfinite().all()


def test_pndm_calls_the_unet_once_more(sd15: Checkpoint) -> None:
    job, _ = _job(sd15, num_inference_steps=5, **PICTURE)
    _finish(job)
    assert job.step == 6


def test_a_guided_picture_asks_without_and_with_the_prompt(sd15: Checkpoint) -> None:
    job, given = _job(sd15, scheduler="DDIM", num_images=2)
    first, second = job.latents
    assert [row.latent.tolist() for row in job.rows] == [x.tolist() for x in (first, first, second, second)]
    assert all(torch.equal(row.text, given.text[index % 2]) for index, row in enumerate(job.rows))
    assert all(row.pooled is None and row.time_ids is None for row in job.rows)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_without_guidance_only_the_prompt_is_asked(sd15: Checkpoint, scale: float) -> None:
    job, given = _job(sd15, guidance_scale=scale, num_images=2)
    assert len(job.rows) == 2
    assert all(torch.equal(row.text, given.text[0]) for row in job.rows)


def test_sdxl_asks_with_its_pooled_text_and_sizes(sdxl: Checkpoint) -> None:
    plan = make_plan(sdxl, size=61)
    job, given = Job(plan, _conditions(plan)), _conditions(plan)
    for row, pooled in zip(job.rows, given.pooled, strict=True):
        assert row.pooled is not None and torch.equal(row.pooled, pooled)
        assert row.time_ids is not None and row.time_ids.tolist() == [64, 64, 0, 0, 64, 64]


@pytest.mark.parametrize("scale", [1.5, 7.5, 20.0])
def test_guidance_goes_beyond_the_prompt(sd15: Checkpoint, scale: float) -> None:
    guided, _ = _job(sd15, scheduler="DDIM", guidance_scale=scale, num_inference_steps=3)
    plain, _ = _job(sd15, scheduler="DDIM", guidance_scale=1.0, num_inference_steps=3)
    free, asked = noise(4, SIDE, SIDE, seed=8), noise(4, SIDE, SIDE, seed=9)
    guided.advance([free, asked])
    plain.advance([free + scale * (asked - free)])
    torch.testing.assert_close(guided.latents, plain.latents)


def test_each_picture_gets_its_own_answer(sd15: Checkpoint) -> None:
    both, _ = _job(sd15, scheduler="Euler", guidance_scale=1.0, num_images=2)
    before = both.latents.clone()
    both.advance([torch.zeros(4, SIDE, SIDE), torch.ones(4, SIDE, SIDE)])
    assert torch.equal(both.latents[0], before[0])
    assert not torch.equal(both.latents[1], before[1])


def test_rows_are_the_same_until_they_are_answered(sd15: Checkpoint) -> None:
    job, _ = _job(sd15, scheduler="Euler")
    assert job.rows is job.rows
    before = job.rows
    job.advance([row.latent for row in job.rows])
    assert float(job.rows[0].t) < float(before[0].t)


def test_the_latents_of_every_step_are_kept_when_asked_for(sd15: Checkpoint) -> None:
    kept, _ = _job(sd15, scheduler="DDIM", num_inference_steps=4, debug_per_pass_latents=True, num_images=2)
    plain, _ = _job(sd15, scheduler="DDIM", num_inference_steps=4, num_images=2)
    _finish(kept)
    _finish(plain)
    assert kept.passes.shape == (4, 2, 4, SIDE, SIDE)
    assert torch.equal(kept.passes[-1], plain.latents)
    assert not torch.equal(kept.passes[0], kept.passes[1])
    assert plain.passes.shape == (0, 2, 4, SIDE, SIDE)


def test_the_seed_decides(sd15: Checkpoint) -> None:
    def start(seed: int) -> torch.Tensor:
        plan = make_plan(sd15).model_copy(update={"seed": seed})
        return Job(plan, _conditions(plan)).latents

    assert torch.equal(start(2**64 - 1), start(2**64 - 1))
    assert not torch.equal(start(0), start(1))
