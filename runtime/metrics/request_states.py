"""The states of a stage's requests: how many wait and run, and for how long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from runtime.jobs.job_table import State
from runtime.metrics.stage_definitions import REQUESTS_RUNNING, REQUESTS_WAITING, STAGE_SECONDS, WAIT_SECONDS
from runtime.metrics.stage_metrics import StageMetrics


@dataclass(frozen=True)
class _Since:
    state: State
    at: float


class RequestStates:
    """Follows each request from WAITING over RUNNING to its end in one stage. Any thread may use it."""

    def __init__(self, metrics: StageMetrics) -> None:
        self._metrics = metrics
        self._requests: dict[int, _Since] = {}
        metrics.declare(WAIT_SECONDS, STAGE_SECONDS)
        metrics.watch(REQUESTS_WAITING, lambda: self._count(State.WAITING))
        metrics.watch(REQUESTS_RUNNING, lambda: self._count(State.RUNNING))

    def report(self, job_id: int, state: State) -> None:
        """The job is now in this state. RUNNING may be reported at every step."""
        before, now = self._requests.get(job_id), time.monotonic()
        if before is not None and before.state == state:
            return
        if state in (State.WAITING, State.RUNNING):
            self._requests[job_id] = _Since(state, now)
        else:
            self._requests.pop(job_id, None)
        if before is None:
            return
        if before.state == State.WAITING and state == State.RUNNING:
            self._metrics.observe(WAIT_SECONDS, now - before.at)
        if before.state == State.RUNNING and state == State.DONE:
            self._metrics.observe(STAGE_SECONDS, now - before.at)

    def _count(self, state: State) -> int:
        return sum(request.state == state for request in list(self._requests.values()))
