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
    assert (large.own, large.peak) == (4 * small.own, 4 * small.peak)
    assert need(make_plan(sd15, size=512), 1000).own == small.own + 1000
    passes = need(make_plan(sd15, size=512, debug_per_pass_latents=True, num_inference_steps=10), 0)
    assert passes.own - small.own == 3 * 10 * 4 * 4 * 64 * 64
