"""The memory that a request's images take."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stages.prepare.memory_estimate import need
from runtime.tile_plan import VaeTile
from tests.unit.runtime.plans import make_plan


def test_the_need_for_memory_grows_with_what_is_asked_for(sd15: Checkpoint) -> None:
    small, more, large = (
        need(make_plan(sd15, size=size, num_images=count), 0) for size, count in ((512, 1), (512, 4), (1024, 1))
    )
    assert small.own < more.own and small.peak == more.peak
    text = 3 * 4 * 2 * 77 * 32
    assert (large.own - text, large.peak) == (4 * (small.own - text), 4 * small.peak)
    assert need(make_plan(sd15, size=512), 1000).own == small.own + 1000
    passes = need(make_plan(sd15, size=512, debug_per_pass_latents=True, num_inference_steps=10), 0)
    assert passes.own - small.own == 4 * (10 + 1) * 4 * 4 * 64 * 64  # PNDM runs one more step


@pytest.mark.parametrize(("name", "steps"), [("timesteps", 1000), ("sigmas", 999)])
def test_a_custom_schedule_counts_its_own_steps(sd15: Checkpoint, name: str, steps: int) -> None:
    fields: dict[str, Any] = {"scheduler": "Euler", "debug_per_pass_latents": True, "num_images": 8}
    first = 1000 if name == "sigmas" else 999
    fields[name] = {"method": "array", "array": [*range(first, first - 1000, -1)]}
    pixels = 2048
    found = need(make_plan(sd15, size=pixels, num_inference_steps=1, **fields), 0)
    tensor = steps * 8 * 4 * 4 * (pixels // 8) ** 2
    assert found.stages["denoiser"].answered > tensor > 8 * 10**9
    assert found.own > 2 * tensor


def test_a_picture_in_tiles_needs_the_memory_of_a_tile(sd15: Checkpoint) -> None:
    tile = need(make_plan(sd15, size=512), 0)
    whole, tiled = (
        need(make_plan(sd15, size=2048, num_images=2, tile_width=side, tile_height=side), 0) for side in (2048, 512)
    )
    assert tiled.peak == tile.peak
    assert whole.peak == 16 * tile.peak
    assert make_plan(sd15, size=4096, vae_tile_above=1024).vae_tile == VaeTile(height=64, width=64)
    assert need(make_plan(sd15, size=4096, vae_tile_above=1024), 0).peak == tile.peak
    # Seven windows along each side. Each of the two latents has two predictions, and a guided one that is copied once.
    assert tiled.own - whole.own == 2 * 4 * 4 * 4 * (7 * 7 * 64 * 64 - 256 * 256)


def test_windows_that_overlap_many_times_need_more_memory(sd15: Checkpoint) -> None:
    fields: dict[str, Any] = {
        "tile_width": 1024,
        "tile_height": 1024,
        "tile_stride_width": 64,
        "tile_stride_height": 64,
    }
    assert need(make_plan(sd15, size=2048, num_images=8, **fields), 0).own > 10**9


def test_a_long_prompt_needs_more_when_it_is_weighted(sdxl: Checkpoint) -> None:
    plain, short, long = (
        need(make_plan(sdxl, prompt=prompt, prompt_weighting=weighting), 0).own
        for prompt, weighting in (("fish " * 100, False), ("fish", True), ("fish " * 100, True))
    )
    assert plain == short
    assert long - short == 3 * 4 * 2 * 77 * (32 + 48) * (400 // 75)
