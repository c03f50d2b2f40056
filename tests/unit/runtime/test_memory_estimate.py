"""The memory that a request's images take."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stages.prepare.memory_estimate import need
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
    assert passes.own - small.own == 3 * 10 * 4 * 4 * 64 * 64


def test_a_long_prompt_needs_more_when_it_is_weighted(sdxl: Checkpoint) -> None:
    plain, short, long = (
        need(make_plan(sdxl, prompt=prompt, prompt_weighting=weighting), 0).own
        for prompt, weighting in (("fish " * 100, False), ("fish", True), ("fish " * 100, True))
    )
    assert plain == short
    assert long - short == 3 * 4 * 2 * 77 * (32 + 48) * (400 // 75)
