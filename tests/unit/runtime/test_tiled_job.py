"""A job whose picture is larger than its tiles: its asks, its steps, and its turns beside other jobs."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.conditioning.controlnet import ControlNet
from runtime.conditioning.image_prompt import ImagePrompts
from runtime.conditioning.ip_masks import PictureMasks
from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Inputs, Outputs, never_cancelled
from runtime.engines.stacking import shapes
from runtime.plan import Plan
from runtime.stages.denoiser.initial_latents import Conditions, plan_schedule
from runtime.stages.denoiser.job import Job
from runtime.stages.step_loop.member import Member
from runtime.stages.step_loop.step_loop import StepLoop
from runtime.window import Window
from tests.unit.runtime.engines import assert_near, noise
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine
from tests.unit.runtime.plans import make_plan
from tests.unit.runtime.stand_in import answer, answered, fake_bound, finish, run_to_end, tensor

WIDTH, HEIGHT = 184, 160  # 23 x 20 latents
TILES = {"tile_width": 128, "tile_height": 128, "tile_stride_width": 64, "tile_stride_height": 64}
PLACES = [(top, left) for top in (0, 4) for left in (0, 7)]  # of the four windows, in latents; the last ones moved in
FIELDS: dict[str, Any] = {"scheduler": "DDIM", "num_inference_steps": 3}


def _plan(checkpoint: Checkpoint, **fields: Any) -> Plan:
    return make_plan(checkpoint, size=WIDTH, height=HEIGHT, **FIELDS | TILES | fields)


def _conditions(plan: Plan) -> Conditions:
    text, pooled = (80, 40) if plan.checkpoint.kind == "sdxl" else (32, 0)
    rows, (_, *shape) = 1 + plan.guided, plan.latents_shape
    posterior = torch.zeros(0, *shape)
    return Conditions(noise(rows, 77, text, seed=1), noise(rows, pooled, seed=2), posterior, posterior)


def _job(plan: Plan, unet: Bound | None = None, controlnets: Sequence[ControlNet] = ()) -> Job:
    return Job(plan, _conditions(plan), plan_schedule(plan), unet or fake_bound(), controlnets)


def _respond(ask: Ask) -> Outputs:
    """Depends on the whole window, and on the prompt."""
    latent = tensor(ask, "latent")
    return {"prediction": latent * 0.7 + latent.mean() + tensor(ask, "text").mean() * latent.flip(-1)}


def _asks(job: Job) -> list[list[Ask]]:
    """The lists of asks of the next step."""
    return answered(job.step(), _respond)[0]


def test_all_windows_are_asked_for_in_one_list(sd15: Checkpoint) -> None:
    job = _job(_plan(sd15, num_images=2))
    latents = job.latents
    (asks,) = _asks(job)
    crops = [latents[:, :, top : top + 16, left : left + 16] for top, left in PLACES]
    expected = [crop[image] for crop in crops for image in range(2) for _ in range(2)]
    assert all(map(torch.equal, (tensor(ask, "latent") for ask in asks), expected))
    assert len(asks) == len(expected) == 16
    assert len({ask.batch_key for ask in asks}) == 1


def test_a_step_averages_the_guided_predictions(sd15: Checkpoint) -> None:
    job = _job(_plan(sd15))
    scheduler = DDIMScheduler.from_config(sd15.scheduler)
    scheduler.set_timesteps(3)
    latents, text = job.latents.clone(), _conditions(_plan(sd15)).text
    for t in scheduler.timesteps:
        total, count = torch.zeros_like(latents), torch.zeros_like(latents)
        for top, left in PLACES:
            crop = latents[:, :, top : top + 16, left : left + 16]
            free, prompted = (crop * 0.7 + crop.mean() + branch.mean() * crop.flip(-1) for branch in text)
            total[:, :, top : top + 16, left : left + 16] += free + 7.5 * (prompted - free)
            count[:, :, top : top + 16, left : left + 16] += 1
        latents = scheduler.step(total / count, t, latents).prev_sample
    assert_near(run_to_end(job, _respond), latents, 1e-4)
    whole = run_to_end(_job(_plan(sd15, tile_width=4096, tile_height=4096)), _respond)
    assert (whole - latents).abs().max() > 1e-2


@pytest.mark.parametrize("scheduler", ["Euler A", "DPM++ 2M SDE", None])
def test_one_scheduler_step_is_made_for_the_whole(sd15: Checkpoint, scheduler: str | None) -> None:
    """A network that computes each latent alone predicts as much in windows as in the whole picture."""
    tiled = _plan(sd15, scheduler=scheduler)
    whole = _plan(sd15, scheduler=scheduler, tile_width=4096, tile_height=4096)
    assert_near(finish(_job(tiled)), finish(_job(whole)), 1e-5)


@pytest.mark.parametrize("tile", [184, 4096])
def test_tiles_that_cover_the_picture_change_no_byte(sd15: Checkpoint, tile: int) -> None:
    covering = _plan(sd15, tile_width=tile, tile_height=tile)
    plain = make_plan(sd15, size=WIDTH, height=HEIGHT, **FIELDS)
    assert torch.equal(run_to_end(_job(covering), _respond), run_to_end(_job(plain), _respond))


def test_sdxls_rows_say_where_their_window_is(sdxl: Checkpoint) -> None:
    (asks,) = _asks(_job(_plan(sdxl)))
    found = [tensor(ask, "time_ids").tolist() for ask in asks[::2]]
    assert found == [[HEIGHT, WIDTH, 8 * top, 8 * left, HEIGHT, WIDTH] for top, left in PLACES]


def test_a_controlnet_sees_the_same_window(sd15: Checkpoint) -> None:
    """Few windows at a time: their residuals take much memory."""
    condition = noise(3, HEIGHT, WIDTH)
    unet, network = fake_bound(), fake_bound("controlnet")
    job = _job(_plan(sd15), unet, [ControlNet(network, condition)])
    latents = job.latents

    def respond(ask: Ask) -> Outputs:
        if ask.bound is unet:
            return _respond(ask)
        return {"residuals": (tensor(ask, "latent") * 2, tensor(ask, "condition"))}

    lists = answered(job.step(), respond)[0]
    assert [len(asks) for asks in lists] == [2] * 8  # of each window first the ControlNet's, then the UNet's
    for (top, left), controlled, predicted in zip(PLACES, lists[::2], lists[1::2], strict=True):
        crop = condition[:, 8 * top : 8 * top + 128, 8 * left : 8 * left + 128]
        for asked, ask in zip(controlled, predicted, strict=True):
            assert torch.equal(tensor(asked, "condition"), crop)
            assert torch.equal(tensor(asked, "latent"), latents[0, :, top : top + 16, left : left + 16])
            assert torch.equal(tensor(ask, "latent"), tensor(asked, "latent"))
            residuals = ask.inputs["residuals"]
            assert isinstance(residuals, tuple)
            assert torch.equal(residuals[0], tensor(asked, "latent") * 2) and torch.equal(residuals[1], crop)


def test_pictures_are_cut_by_the_vaes_factor(sd15: Checkpoint) -> None:
    """A VAE of three levels has 4 pixels for a latent."""
    vae = sd15.vae.model_copy(update={"config": {**sd15.vae.config, "block_out_channels": [16, 16, 32]}})
    plan = _plan(sd15.model_copy(update={"vae": vae}))
    condition, mask, ip_mask = (
        noise(3, HEIGHT, WIDTH),
        noise(HEIGHT, WIDTH, seed=1),
        noise(1, HEIGHT, WIDTH, seed=2) > 0,
    )
    unet, network = fake_bound(), fake_bound("controlnet")
    prompts, index = (
        ImagePrompts(noise(2, 1, 4, 8), noise(2, 1, 4, 8), torch.zeros(1, 4)),
        torch.zeros(1, dtype=torch.long),
    )
    conditions = replace(_conditions(plan), image_prompts=prompts, ip_masks=PictureMasks(ip_mask, index))
    job = Job(plan, conditions, plan_schedule(plan), unet, [ControlNet(network, condition, mask)])

    def respond(ask: Ask) -> Outputs:
        return _respond(ask) if ask.bound is unet else {"residuals": (torch.ones(1, 128, 128),)}

    lists = answered(job.step(), respond)[0]
    assert len(lists) == 8 and tensor(lists[1][0], "latent").shape[1:] == (32, 32)
    places = [(top, left) for top in (0, 32) for left in (0, 56)]  # in pixels
    for (top, left), (asked, _), (ask, _) in zip(places, lists[::2], lists[1::2], strict=True):
        rows, columns = slice(top, top + 128), slice(left, left + 128)
        assert torch.equal(tensor(asked, "condition"), condition[:, rows, columns])
        cut = PictureMasks(ip_mask[:, rows, columns], index).resize(Window(0, 0, 32, 32), 4, plan.unet.config)
        levels = ask.inputs["ip_masks"]
        assert isinstance(levels, tuple) and all(map(torch.equal, levels, cut.masks))
        residuals = ask.inputs["residuals"]
        assert isinstance(residuals, tuple) and torch.equal(residuals[0][0], mask[rows, columns])


def test_the_windows_of_a_controlled_job_fill_a_block(sd15: Checkpoint) -> None:
    unet, network = Bound(FakeEngine(), FakeBinding(), 6), fake_bound("controlnet")
    job = _job(_plan(sd15), unet, [ControlNet(network, noise(3, HEIGHT, WIDTH))])

    def respond(ask: Ask) -> Outputs:
        return _respond(ask) if ask.bound is unet else {"residuals": (tensor(ask, "latent"),)}

    assert [len(asks) for asks in answered(job.step(), respond)[0]] == [6, 6, 2, 2]


class _Engine(FakeEngine):
    """Predicts what the stand-in does. `calls` holds the seed of each row's request, which is in its text."""

    def batch_key(self, binding: Any, inputs: Inputs) -> Hashable:
        return shapes(inputs)

    def run(self, rows: Sequence[tuple[Any, Inputs]]) -> list[Outputs]:
        asks = [Ask(fake_bound(), inputs) for _, inputs in rows]
        self.calls.append([int(tensor(ask, "text")[0, 0]) for ask in asks])
        self.began.release()
        assert self.gate and self.gate.acquire(timeout=10)
        return [{"prediction": answer(tensor(ask, "latent"), tensor(ask, "t"))} for ask in asks]


class _Running:
    """A job in the loop, whose rows carry its number."""

    def __init__(self, loop: StepLoop, engine: _Engine, plan: Plan, number: int, block: int) -> None:
        conditions = _conditions(plan)
        conditions.text[:, 0, 0] = number
        self._job = Job(plan, conditions, plan_schedule(plan), Bound(engine, FakeBinding(), block))
        self._ended = threading.Event()
        self._error: BaseException | None = None
        loop.add(Member(self._job, never_cancelled, lambda *_: None, self._end))

    def latents(self) -> torch.Tensor:
        """Waits for the end."""
        assert self._ended.wait(30) and self._error is None
        return self._job.latents

    def _end(self, _: Member, error: BaseException | None) -> None:
        self._error = error
        self._ended.set()


@pytest.fixture
def engine() -> _Engine:
    """Its calls wait for `let_go`."""
    return _Engine(gate=threading.Semaphore(0))


@pytest.fixture
def loop(engine: _Engine) -> Iterator[StepLoop]:
    found = StepLoop()
    yield found
    engine.let_go(1000)
    found.close()


@pytest.mark.parametrize("side", [128, 64], ids=["of the tile's size", "of another size"])
def test_a_small_request_waits_for_one_call_of_a_tiled_one(
    sd15: Checkpoint, engine: _Engine, loop: StepLoop, side: int
) -> None:
    tiled = _Running(loop, engine, _plan(sd15, num_inference_steps=9), 1, 2)
    engine.wait_for_call()
    small = _Running(loop, engine, make_plan(sd15, size=side, **FIELDS), 2, 2)
    engine.let_go(1000)
    small.latents(), tiled.latents()
    turns = [numbers[0] for numbers in engine.calls]
    places = [place for place, number in enumerate(turns) if number == 2]
    assert len(turns) == 9 * 4 + 3 and len(places) == 3
    # Between two calls of the small request, at most one of the tiled one; before the first, also the running one.
    assert places[0] <= 2
    assert all(later - earlier <= 2 for earlier, later in pairwise(places))


@pytest.mark.parametrize("other", ["tiled", "of the tile's size"])
def test_rows_of_tiles_share_a_block_with_those_of_other_requests(
    sd15: Checkpoint, engine: _Engine, loop: StepLoop, other: str
) -> None:
    """Eight rows a step in blocks of six: the last two leave room for the other request's."""
    plans = [
        _plan(sd15),
        _plan(sd15, tile_stride_width=128) if other == "tiled" else make_plan(sd15, size=128, **FIELDS),
    ]
    both = [_Running(loop, engine, plan, number, 6) for number, plan in enumerate(plans, 1)]
    engine.let_go(1000)
    together = [running.latents() for running in both]
    assert any(set(numbers) == {1, 2} for numbers in engine.calls)
    alone = [_Running(loop, engine, plan, number, 6).latents() for number, plan in enumerate(plans, 1)]
    assert all(map(torch.equal, together, alone))
