"""What a request's parameters may say, and what its pictures take."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.job_parameters import JobParameters, read_job_parameters
from runtime.stages.prepare.memory_estimate import need
from tests.unit.runtime.plans import make_plan


@pytest.mark.parametrize(
    ("parameters", "terms"),
    [
        ({}, JobParameters("", 2, math.inf)),
        ({"job_token": "t", "job_priority": 1}, JobParameters("t", 1, math.inf)),
        ({"job_priority": "3", "images": "data_uri"}, JobParameters("", 3, math.inf)),
        ({"job_timeout_ms": 1500}, JobParameters("", 2, 101.5)),
        ({"job_timeout_ms": "1"}, JobParameters("", 2, 100.001)),
    ],
)
def test_terms_are_read(parameters: dict[str, Any], terms: JobParameters) -> None:
    assert read_job_parameters(parameters, now=100.0) == terms


@pytest.mark.parametrize("name", ["job_priority", "job_timeout_ms"])
@pytest.mark.parametrize("value", [0, -1, "", "x", "1.5", "1e3", True, False, 10**12, "9" * 5000, "²", " 1"])
def test_other_terms_are_refused_by_their_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^{name}: a whole number from 1 to "):
        read_job_parameters({name: value}, now=0.0)


def test_the_need_for_memory_grows_with_what_is_asked_for(sd15: Checkpoint) -> None:
    small, more, large = (
        need(make_plan(sd15, size=size, num_images=count), 0) for size, count in ((512, 1), (512, 4), (1024, 1))
    )
    assert small.own < more.own and small.peak == more.peak
    assert (large.own, large.peak) == (4 * small.own, 4 * small.peak)
    assert need(make_plan(sd15, size=512), 1000).own == small.own + 1000
    passes = need(make_plan(sd15, size=512, debug_per_pass_latents=True, num_inference_steps=10), 0)
    assert passes.own - small.own == 3 * 10 * 4 * 4 * 64 * 64
