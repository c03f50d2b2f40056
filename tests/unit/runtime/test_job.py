"""A job: its draws, its asks and its steps are those of diffusers' pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from lorikeet.schema import SchedulerName
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.controlnet import ControlNet
from runtime.engines.ask import Ask
from runtime.engines.engine import Outputs
from runtime.plan import Plan
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from tests.unit.runtime.engines import noise
from tests.unit.runtime.faults import raising
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.stand_in import answered, fake_bound, releases, run_to_end, tensor

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
    return Job(plan, conditions, plan_schedule(plan), fake_bound()), conditions


def _respond(ask: Ask) -> Outputs:
    """Half of the row's latent plus a little of its text."""
    return {"prediction": tensor(ask, "latent") / 2 + tensor(ask, "text").mean()}


def _finish(job: Job) -> None:
    run_to_end(job, _respond)


def _asks(job: Job) -> list[Ask]:
    """The first asks of the next step, which is closed without an answer."""
    step = job.step()
    asks = next(step)
    step.close()
    return asks


def _answer(job: Job, predictions: list[torch.Tensor]) -> None:
    """Answer a step that asks one list."""
    step = job.step()
    assert len(next(step)) == len(predictions)
    with pytest.raises(StopIteration):
        step.send([{"prediction": prediction} for prediction in predictions])


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
    assert (job.done, job.steps_done, job.steps) == (True, 0, 0)
    assert torch.equal(job.latents, (given.mean * SCALING[checkpoint.kind]).repeat(2, 1, 1, 1))
    assert job.passes.shape == (0, 2, 4, SIDE, SIDE)


@pytest.mark.parametrize("scheduler", [name.value for name in SchedulerName])
@pytest.mark.parametrize(("steps", "strength"), [(1, 0.01), (3, 0.5), (5, 0.8), (4, 1.0)])
def test_as_many_steps_as_were_asked_for_are_run(sd15: Checkpoint, scheduler: str, steps: int, strength: float) -> None:
    job, _ = _job(sd15, scheduler=scheduler, num_inference_steps=steps, noise_strength=strength, **PICTURE)
    _finish(job)
    assert job.steps_done == job.steps == steps
    assert job.latents.isfinite().all()


def test_pndm_calls_the_unet_once_more(sd15: Checkpoint) -> None:
    job, _ = _job(sd15, num_inference_steps=5, **PICTURE)
    _finish(job)
    assert job.steps_done == 6


def test_a_guided_picture_asks_without_and_with_the_prompt(sd15: Checkpoint) -> None:
    job, given = _job(sd15, scheduler="DDIM", num_images=2)
    first, second = job.latents
    asks = _asks(job)
    assert len(asks) == 4
    assert all(map(torch.equal, (tensor(ask, "latent") for ask in asks), (first, first, second, second)))
    assert all(torch.equal(tensor(ask, "text"), given.text[index % 2]) for index, ask in enumerate(asks))
    assert all(ask.inputs.keys() == {"latent", "t", "text"} for ask in asks)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_without_guidance_only_the_prompt_is_asked(sd15: Checkpoint, scale: float) -> None:
    job, given = _job(sd15, guidance_scale=scale, num_images=2)
    assert len(_asks(job)) == 2
    assert all(torch.equal(tensor(ask, "text"), given.text[0]) for ask in _asks(job))


def test_sdxl_asks_with_its_pooled_text_and_sizes(sdxl: Checkpoint) -> None:
    plan = make_plan(sdxl, size=61)
    given = _conditions(plan)
    for ask, pooled in zip(_asks(Job(plan, given, plan_schedule(plan), fake_bound())), given.pooled, strict=True):
        assert torch.equal(tensor(ask, "pooled"), pooled)
        assert tensor(ask, "time_ids").tolist() == [64, 64, 0, 0, 64, 64]


@pytest.mark.parametrize("scale", [1.5, 7.5, 20.0])
def test_guidance_goes_beyond_the_prompt(sd15: Checkpoint, scale: float) -> None:
    guided, _ = _job(sd15, scheduler="DDIM", guidance_scale=scale, num_inference_steps=3)
    plain, _ = _job(sd15, scheduler="DDIM", guidance_scale=1.0, num_inference_steps=3)
    free, asked = noise(4, SIDE, SIDE, seed=8), noise(4, SIDE, SIDE, seed=9)
    _answer(guided, [free, asked])
    _answer(plain, [free + scale * (asked - free)])
    torch.testing.assert_close(guided.latents, plain.latents)


def test_each_picture_gets_its_own_answer(sd15: Checkpoint) -> None:
    both, _ = _job(sd15, scheduler="Euler", guidance_scale=1.0, num_images=2)
    before = both.latents.clone()
    _answer(both, [torch.zeros(4, SIDE, SIDE), torch.ones(4, SIDE, SIDE)])
    assert torch.equal(both.latents[0], before[0])
    assert not torch.equal(both.latents[1], before[1])


@pytest.mark.parametrize("scheduler", ["Euler", "DPM++ 2M SDE", None])
def test_a_step_that_is_closed_changes_nothing(sd15: Checkpoint, scheduler: str | None) -> None:
    """A job goes on only when all asks of a step are answered; until then it asks the same again."""
    closed, (plain, _) = _job(sd15, scheduler=scheduler)[0], _job(sd15, scheduler=scheduler)
    first, again = _asks(closed), _asks(closed)
    assert closed.steps_done == 0
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(tensor(one, name), tensor(other, name)) for name in ("latent", "t", "text"))
    for job in (closed, plain):
        answered(job.step(), _respond)
    assert torch.equal(closed.latents, plain.latents)
    assert float(tensor(_asks(closed)[0], "t")) < float(tensor(first[0], "t"))
    assert closed.steps_done == 1


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
        return Job(plan, _conditions(plan), plan_schedule(plan), fake_bound()).latents

    assert torch.equal(start(2**64 - 1), start(2**64 - 1))
    assert not torch.equal(start(0), start(1))


CONDITION = torch.zeros(3, 8 * SIDE, 8 * SIDE)


def _residuals(value: float) -> tuple[torch.Tensor, ...]:
    return torch.full((2, 4, 4), value), torch.full((3, 2, 2), value)


def test_the_controlnets_are_asked_first_and_their_residuals_go_to_the_unet(sd15: Checkpoint) -> None:
    unet, one, other = fake_bound(), fake_bound("one"), fake_bound("other")
    plan = make_plan(sd15, scheduler="DDIM", num_inference_steps=2)
    job = Job(
        plan, _conditions(plan), plan_schedule(plan), unet, [ControlNet(one, CONDITION), ControlNet(other, CONDITION)]
    )
    values = {one: 1.0, other: 10.0}

    def respond(ask: Ask) -> Outputs:
        return _respond(ask) if ask.bound is unet else {"residuals": _residuals(values[ask.bound])}

    while not job.done:
        first, second, unets = answered(job.step(), respond)[0]
        assert [[ask.bound for ask in asks] for asks in (first, second, unets)] == [[one] * 2, [other] * 2, [unet] * 2]
        for asked, ask in zip([*first, *second], unets * 2, strict=True):
            assert all(torch.equal(tensor(asked, name), tensor(ask, name)) for name in ("latent", "t", "text"))
        for ask in unets:
            residuals = ask.inputs["residuals"]
            assert isinstance(residuals, tuple)
            assert all(map(torch.equal, residuals, _residuals(11.0)))


@pytest.mark.parametrize("lists_answered", [0, 1, 2])
def test_closing_a_job_releases_every_binding_once(sd15: Checkpoint, lists_answered: int) -> None:
    """Wherever its step stands: at the ControlNet's asks, at the UNet's, or at its end."""
    unet, controlnet = fake_bound(), fake_bound("controlnet")
    plan = make_plan(sd15, scheduler="DDIM")
    job = Job(plan, _conditions(plan), plan_schedule(plan), unet, [ControlNet(controlnet, CONDITION)])
    step = job.step()
    asks = next(step)
    if lists_answered > 0:
        asks = step.send([{"residuals": _residuals(1.0)} for _ in asks])
    if lists_answered > 1:
        with pytest.raises(StopIteration):
            step.send([_respond(ask) for ask in asks])
    assert (releases(unet), releases(controlnet)) == (0, 0)
    step.close()
    job.close()
    assert (releases(unet), releases(controlnet)) == (1, 1)


def test_a_job_that_cannot_be_made_releases_nothing(monkeypatch: pytest.MonkeyPatch, sd15: Checkpoint) -> None:
    """Its caller still holds the bindings."""
    unet, controlnet = fake_bound(), fake_bound("controlnet")
    monkeypatch.setattr("runtime.stages.denoiser.job.initial_latents", raising(MemoryError()))
    plan = make_plan(sd15)
    with pytest.raises(MemoryError):
        Job(plan, _conditions(plan), plan_schedule(plan), unet, [ControlNet(controlnet, CONDITION)])
    assert (releases(unet), releases(controlnet)) == (0, 0)
