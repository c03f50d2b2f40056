"""The VAE in tiles: as diffusers' tiled VAE, each tile a call of its own, and small requests do not wait for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import Outputs
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.jobs.job_table import JobRef, JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, Internal
from runtime.stages.vae.stage import VaeDecoderStage, VaeEncoderStage
from runtime.stages.vae.tile_grid import Blend, TileGrid
from runtime.tile_plan import VaeTile
from tests.reference import relative_error
from tests.unit.runtime.engines import assert_near, noise
from tests.unit.runtime.plans import Answer, make_plan, run_stage, submit

TOLERANCE = 1e-4
WIDTH, HEIGHT = 262, 199  # 33 x 25 latents; the last column of tiles has 9 latents, the last row has 1
TILES: dict[str, Any] = {"tile_width": 128, "tile_height": 128}
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
IMAGE: dict[str, Any] = {"image_url": "tensor:0"}


@cache
def _pipe(folder: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(folder)


def _vae(tiny: Path, tile: int) -> AutoencoderKL:
    """diffusers' VAE with tiles of this many pixels; 0: none."""
    vae: AutoencoderKL = _pipe(tiny / "sd15").vae
    vae.use_tiling = tile > 0
    vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor = tile, tile // 8, 0.25
    return vae


def _plan(checkpoint: Checkpoint, job: JobRef | None, **fields: Any) -> Plan:
    return make_plan(checkpoint, job, size=WIDTH, height=HEIGHT, **TILES | fields)


def _padded() -> torch.Tensor:
    padded = np.pad(PIXELS, ((0, 200 - HEIGHT), (0, 264 - WIDTH), (0, 0)), "edge")
    return torch.from_numpy(padded).permute(2, 0, 1)[None] / 255 * 2 - 1


@pytest.mark.parametrize(
    ("fields", "tile"),
    [(TILES, 128), ({"tile_width": 159, "tile_height": 159}, 128), ({"tile_width": 160, "tile_height": 160}, 160)],
)
def test_the_encoder_blends_the_tiles_moments(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, fields: Any, tile: int
) -> None:
    plan = _plan(sd15, job, **IMAGE | fields)
    found = run_stage(VaeEncoderStage(settings, job_table), plan, {"PICTURES": PIXELS.reshape(-1)}).tensors
    with torch.no_grad():
        expected = _vae(tiny, tile).encode(_padded()).latent_dist
        whole = _vae(tiny, 0).encode(_padded()).latent_dist
    for name, value, untiled in (
        ("LATENT_MEAN", expected.mean, whole.mean),
        ("LATENT_STD", expected.std, whole.std),
    ):
        assert relative_error(found[name], value) < TOLERANCE
        assert relative_error(value, untiled) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("fields", "tile"),
    [(TILES, 128), ({"tile_width": 192, "tile_height": 192}, 192), ({"vae_tile_above": 256, "tile_height": 128}, 128)],
)
def test_the_decoder_blends_the_tiles_of_each_picture(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, fields: Any, tile: int
) -> None:
    plan = make_plan(sd15, job, size=WIDTH, height=HEIGHT, num_images=2, **fields)
    latents = noise(2, 4, 25, 33)
    found = run_stage(VaeDecoderStage(settings, job_table), plan, {"LATENTS": latents.numpy()}).tensors["PIXELS"]
    expected, whole = (_decoded(_vae(tiny, size), latents) for size in (tile, 0))
    assert found.shape == (2, HEIGHT, WIDTH, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1  # a rounding may fall the other way
    assert np.abs(expected - whole).max() > 10


@torch.no_grad()
def _decoded(vae: AutoencoderKL, latents: torch.Tensor) -> Any:
    pictures = torch.cat([vae.decode(one[None] / 0.18215).sample for one in latents])
    pixels = (pictures / 2 + 0.5).clamp(0, 1)[:, :, :HEIGHT, :WIDTH].permute(0, 2, 3, 1).numpy()
    return (pixels * 255).round().astype(int)


@pytest.mark.parametrize("unit", [1, 8])
def test_tiles_that_are_not_square_blend_along_each_axis(tiny: Path, unit: int) -> None:
    """diffusers' own blending, with another size along each axis."""
    grid, vae = TileGrid(40, 50, VaeTile(height=24, width=16)), _vae(tiny, 0)
    tops, lefts = range(0, 40, 18), range(0, 50, 12)
    assert [(window.top, window.left) for window in grid.windows] == [(top, left) for top in tops for left in lefts]
    tiles = {
        window[:2]: noise(3, unit * window.height, unit * window.width, seed=place)
        for place, window in enumerate(grid.windows)
    }
    blend, found = Blend(grid, unit), torch.zeros(3, unit * 40, unit * 50)
    for window in grid.windows:
        part = blend.add(window, tiles[window[:2]])
        top, left = unit * window.top, unit * window.left
        found[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    blended: dict[tuple[int, int], torch.Tensor] = {}
    for (top, left), tile in tiles.items():
        values = tile.clone()[None]
        if top:
            values = vae.blend_v(blended[top - 18, left], values, 6 * unit)
        if left:
            values = vae.blend_h(blended[top, left - 12], values, 4 * unit)
        blended[top, left] = values
    rows = [torch.cat([blended[top, left][..., : 18 * unit, : 12 * unit] for left in lefts], 3) for top in tops]
    assert_near(found, torch.cat(rows, 2)[0], 1e-6)


def test_blending_keeps_only_the_edges(tiny: Path) -> None:
    grid = TileGrid(64, 64, VaeTile(height=16, width=16))
    blend, held = Blend(grid, 8), 0
    for window in grid.windows:
        blend.add(window, torch.zeros(3, 8 * window.height, 8 * window.width))
        kept = [blend._before, *blend._above.values()]
        held = max(held, sum(edge.untyped_storage().nbytes() for edge in kept if edge is not None))
    columns = len({window.left for window in grid.windows})
    assert held <= (columns + 1) * 3 * 128 * 32 * 4


class _Calls:
    """Records the pixels of each engine call's row, and lets a call end when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.began, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        self.fail: int | None = None
        run = TorchEngine.run

        def gated(engine: TorchEngine, rows: Sequence[Any]) -> list[Outputs]:
            (row,) = rows  # one item a call
            (value,) = row[1].values()
            self.sizes.append(tuple(value.shape[1:]))
            self.began.release()
            assert self.gate.acquire(timeout=30)
            if len(self.sizes) == self.fail:
                raise RuntimeError("out of memory")
            return run(engine, rows)

        monkeypatch.setattr(TorchEngine, "run", gated)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Calls]:
    found = _Calls(monkeypatch)
    yield found
    found.gate.release(1000)


def _submit(stage: VaeEncoderStage | VaeDecoderStage, plan: Plan) -> Answer:
    _, _, height, width = plan.latents_shape
    if isinstance(stage, VaeDecoderStage):
        return submit(stage, plan, {"LATENTS": noise(plan.request.num_images, 4, height, width).numpy()})
    return submit(stage, plan, {"PICTURES": np.zeros(3 * plan.height * plan.width, np.uint8)})


@pytest.mark.parametrize("kind", [VaeEncoderStage, VaeDecoderStage])
def test_a_small_request_waits_for_one_tile(
    calls: _Calls, settings: Settings, job_table: JobTable, sd15: Checkpoint, kind: Any
) -> None:
    stage = kind(settings, job_table)
    large, small = (job_table.open("", "", 9) for _ in range(2))
    assert large and small
    # Two rows of six tiles, of which the first five are equal: their calls could have one long turn.
    answers = [_submit(stage, make_plan(sd15, large, size=520, height=128, **IMAGE | TILES))]
    assert calls.began.acquire(timeout=30)
    answers.append(_submit(stage, make_plan(sd15, small, size=64, **IMAGE)))
    while stage.workers[1].queued < 2:  # the step loop
        assert not answers[1].all
        time.sleep(0.01)
    calls.gate.release(1000)
    assert all(answer.tensors for answer in answers)
    stage.close()
    side = 64 if kind is VaeEncoderStage else 8
    assert calls.sizes.index((side, side)) <= 2, "the call that ran, and at most one more tile"
    assert len(calls.sizes) == 12 + 1
    progress = job_table.progress(large)
    assert (progress.step, progress.of) == (12, 12)


def test_a_cancel_ends_a_tiled_picture_between_two_tiles(
    calls: _Calls, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    stage = VaeDecoderStage(settings, job_table)
    answer = _submit(stage, _plan(sd15, job))
    assert calls.began.acquire(timeout=30)
    job_table.cancel(job)
    calls.gate.release(1000)
    assert isinstance(answer.error, Cancelled)
    stage.close()
    assert len(calls.sizes) == 1


def test_a_failed_tile_ends_its_own_request(
    calls: _Calls, settings: Settings, job_table: JobTable, sd15: Checkpoint
) -> None:
    stage = VaeDecoderStage(settings, job_table)
    first, second = (job_table.open("", "", 9) for _ in range(2))
    calls.fail = 1
    answers = [_submit(stage, _plan(sd15, first))]
    assert calls.began.acquire(timeout=30)
    answers.append(_submit(stage, _plan(sd15, second)))
    calls.gate.release(1000)
    assert isinstance(answers[0].error, Internal)
    assert answers[1].tensors
    stage.close()


def test_a_picture_in_tiles_has_the_same_bytes_beside_others(
    settings: Settings, job_table: JobTable, sd15: Checkpoint
) -> None:
    def decode(stage: VaeDecoderStage, count: int) -> list[Any]:
        plans = [_plan(sd15, job_table.open("", "", 9), num_images=number) for number in range(1, count + 1)]
        answers = [_submit(stage, plan) for plan in plans]
        return [answer.tensors["PIXELS"] for answer in answers]

    stage = VaeDecoderStage(settings, job_table)
    (alone,) = decode(stage, 1)
    assert np.array_equal(decode(stage, 3)[0], alone)
    stage.close()
