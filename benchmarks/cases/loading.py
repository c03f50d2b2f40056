"""A running request's step time while another checkpoint loads, relative to its step time otherwise."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.bench import Bench
from benchmarks.pairs import ratio
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from benchmarks.step_watch import StepWatch
from lorikeet import Cancelled
from runtime.jobs.job_table import JobRef, JobTable, State

_STEPS = 150  # more than the case waits for
# A request with the least work besides the load.
_SMALLEST = {"image_size": {"width": 64, "height": 64}, "num_inference_steps": 1, "guidance_scale": 1.0}


def run(bench: Bench) -> Outcome:
    pixels, rounds, steps_alone = (64, 2, 20) if bench.quick else (256, 4, 5)
    model, other = bench.models.checkpoint("sd15"), bench.models.checkpoint("sd15-other")
    measured: list[_StepTimes] = []
    for _ in bench.rounds(rounds):
        with bench.server() as server:  # a new one each time, which has not loaded the other checkpoint
            settings = {"pixels": pixels, "triton": server.triton_version()}
            running = {"model_name": str(model), **bench.requests.next(pixels).fields}
            request = bench.requests.next(64)
            small = {"model_name": str(other), "prompt": request.prompt, "seed": request.seed, **_SMALLEST}
            measured.append(_round(server, running, small, steps_alone))
    alone = [seconds for times in measured for seconds in times.alone]
    loading = [seconds for times in measured for seconds in times.loading]
    return Outcome(
        [
            Figure(
                f"SD 1.5, {pixels} px: step time while another checkpoint loads, relative to step time without loading",
                ratio(loading, alone),
                at_most=1.5,
            )
        ],
        {"alone": alone, "loading": loading, "load_seconds": [times.load_seconds for times in measured]},
        settings,
    )


@dataclass(frozen=True)
class _StepTimes:
    """Seconds of each step alone and during the load, and seconds of the load."""

    alone: list[float]
    loading: list[float]
    load_seconds: float


def _round(server: RunningServer, running: dict[str, Any], other: dict[str, Any], steps_alone: int) -> _StepTimes:
    """Watch steps alone, then during the load of the other checkpoint, then alone again."""
    long = server.client.submit(running, num_inference_steps=_STEPS)
    watch = StepWatch(server.job_table, server.admitted(long))
    watch.next_steps(steps_alone + 1)
    sent = time.monotonic()
    loader = server.client.submit(other)
    job = server.admitted(loader)
    loaded = watch.until(lambda: _is_loaded(server.job_table, job))
    ended = watch.until(lambda: server.job_table.progress(job).state >= State.DONE)
    watch.next_steps(steps_alone + 1)
    long.cancel()
    with suppress(Cancelled):
        long.result()
    loader.result()
    steps = list(pairwise(watch.times))
    return _StepTimes(
        alone=[end - begin for begin, end in steps if end <= sent or begin >= ended],
        loading=[end - begin for begin, end in steps if end > sent and begin < loaded],
        load_seconds=loaded - sent,
    )


def _is_loaded(job_table: JobTable, job: JobRef) -> bool:
    """Whether the job's UNet is bound and its first step is next, or the job has ended."""
    progress = job_table.progress(job)
    if progress.stage == "denoiser":
        return progress.state != State.WAITING
    return progress.stage == "vae_decoder" or progress.state >= State.DONE
