"""The times at which a running job ends its denoising steps, as the job table shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.jobs.job_table import STAGES, JobRef, JobTable, State

_POLL_SECONDS = 0.005


@dataclass
class StepWatch:
    """`times`: the monotonic times at which steps ended. Of several steps between two polls, only the last is seen."""

    job_table: JobTable
    job: JobRef
    times: list[float] = field(default_factory=list)
    _steps: list[int] = field(default_factory=list)

    def until(self, done: Callable[[], bool]) -> float:
        """Watch until `done()`; the monotonic time. Raises RuntimeError when the job ends first."""
        while not done():
            progress = self.job_table.progress(self.job)
            if progress.state >= State.DONE:
                raise RuntimeError(f"the request ended too early: in {progress.stage}, state {progress.state.name}")
            if progress.stage == "denoiser" and progress.step > (self._steps[-1] if self._steps else 0):
                self.times.append(time.monotonic())
                self._steps.append(progress.step)
            time.sleep(_POLL_SECONDS)
        return time.monotonic()

    def next_steps(self, steps: int) -> float:
        """Watch this number of further steps; the monotonic time."""
        enough = len(self.times) + steps
        return self.until(lambda: len(self.times) >= enough)

    def to_the_end(self) -> float:
        """Watch until the denoiser is done; seconds of a step, from the first one that was seen to the last one."""
        self.until(lambda: is_past(self.job_table, self.job, "denoiser"))
        return (self.times[-1] - self.times[0]) / (self._steps[-1] - self._steps[0])


def is_past(job_table: JobTable, job: JobRef, stage: str) -> bool:
    """Whether the next stage has the job, or it has ended."""
    following = STAGES[STAGES.index(stage) + 1]
    return job_table.has_seen(job, following) or job_table.progress(job).state >= State.DONE
