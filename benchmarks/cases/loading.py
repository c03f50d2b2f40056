"""How much a running request slows down while another checkpoint is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.bench import Bench
from benchmarks.pairs import ratio
from benchmarks.results import Figure, Outcome
from benchmarks.server import Serving
from lorikeet import Cancelled, Job
from runtime.jobs.job_table import JobRef, JobTable, State

_STEPS = 150  # more than are waited for
_LOOK_SECONDS = 0.005
# As little work besides the loading as a request can be.
_SMALLEST = {"image_size": {"width": 64, "height": 64}, "num_inference_steps": 1, "guidance_scale": 1.0}


def run(bench: Bench) -> Outcome:
    pixels, rounds, steps_alone = (64, 2, 20) if bench.quick else (256, 4, 5)
    model, other = bench.models.checkpoint("sd15"), bench.models.checkpoint("sd15-other")
    found: list[_Seen] = []
    for _ in bench.rounds(rounds):
        with bench.server() as server:  # a new one each time: the other checkpoint was never seen
            settings = {"pixels": pixels, "triton": server.triton_version()}
            running = {"model_name": str(model), **bench.questions.next(pixels).fields}
            question = bench.questions.next(64)
            small = {"model_name": str(other), "prompt": question.prompt, "seed": question.seed, **_SMALLEST}
            found.append(_round(server, running, small, steps_alone))
    alone = [seconds for seen in found for seconds in seen.alone]
    loading = [seconds for seen in found for seconds in seen.loading]
    return Outcome(
        [Figure("a running request's step / the same alone", ratio(loading, alone), at_most=1.5)],
        {"alone": alone, "loading": loading, "load_seconds": [seen.load_seconds for seen in found]},
        settings,
    )


@dataclass(frozen=True)
class _Seen:
    """Seconds of each step by what else was going on, and how long the loading took."""

    alone: list[float]
    loading: list[float]
    load_seconds: float


@dataclass
class _Watch:
    """The moments at which a job ended a step, as the job table shows them."""

    job_table: JobTable
    job: JobRef
    times: list[float] = field(default_factory=list)
    _step: int = 0

    def until(self, done: Callable[[], bool]) -> float:
        """Watch until then; the moment. Raises RuntimeError when the job ends before."""
        while not done():
            progress = self.job_table.progress(self.job)
            if progress.state >= State.DONE or progress.step == _STEPS:
                raise RuntimeError("the running request ended before the other checkpoint was loaded")
            if progress.stage == "denoiser" and progress.step > self._step:
                self.times.append(time.monotonic())
                self._step = progress.step
            time.sleep(_LOOK_SECONDS)
        return time.monotonic()

    def more(self, steps: int) -> float:
        """Watch so many steps."""
        enough = len(self.times) + steps
        return self.until(lambda: len(self.times) >= enough)


def _round(server: Serving, running: dict[str, Any], other: dict[str, Any], steps_alone: int) -> _Seen:
    """Some steps alone, some while the other checkpoint loads, some alone again."""
    long = server.client.submit(running, num_inference_steps=_STEPS)
    watch = _Watch(server.job_table, _admitted(server.job_table, long))
    watch.more(steps_alone + 1)
    sent = time.monotonic()
    loader = server.client.submit(other)
    job = _admitted(server.job_table, loader)
    loaded = watch.until(lambda: _is_loaded(server.job_table, job))
    ended = watch.until(lambda: server.job_table.progress(job).state >= State.DONE)
    watch.more(steps_alone + 1)
    long.cancel()
    with suppress(Cancelled):
        long.result()
    loader.result()
    steps = list(pairwise(watch.times))
    return _Seen(
        alone=[end - begin for begin, end in steps if end <= sent or begin >= ended],
        loading=[end - begin for begin, end in steps if end > sent and begin < loaded],
        load_seconds=loaded - sent,
    )


def _admitted(job_table: JobTable, job: Job) -> JobRef:
    """The job's place on the job table, when it has one."""
    while (found := job_table.find(job.request_id, job.job_token)) is None:
        time.sleep(_LOOK_SECONDS)
    return found


def _is_loaded(job_table: JobTable, job: JobRef) -> bool:
    """Whether the job's UNet is bound, so that its first step is next; or the job has ended."""
    progress = job_table.progress(job)
    if progress.stage == "denoiser":
        return progress.state != State.WAITING
    return progress.stage == "vae_decoder" or progress.state >= State.DONE
