"""Reports a stage's progress on a job, and raises when the job must end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.jobs.worker_pool import Task
from runtime.metrics.request_states import RequestStates
from runtime.metrics.stage_metrics import StageMetrics
from runtime.stage_errors import Cancelled, DeadlineExceeded, Internal, StageError, Unavailable

log = logging.getLogger("lorikeet")


class FailableCall(Protocol):
    """A call that can be answered with an error."""

    def fail(self, error: StageError) -> None: ...


class JobReporter:
    """Writes one stage's records in the job table; raises when a job was cancelled, timed out, or the server stops.

    `metrics`: the stage's; the reporter adds how many requests wait and run, and for how long.
    """

    def __init__(self, stage: str, job_table: JobTable) -> None:
        self.stage, self.job_table = stage, job_table
        self.metrics = StageMetrics(stage)
        self._states = RequestStates(self.metrics)
        self.closed = False

    def close(self) -> None:
        """From now on `check` raises Unavailable for every job."""
        self.closed = True

    def check(self, job: JobRef) -> None:
        """Raises Cancelled when the client cancelled the job or does not renew its lease, DeadlineExceeded when its
        timeout has passed, Unavailable when the server is stopping or has given up the job."""
        if not self.job_table.holds(job):
            raise Unavailable("the server was too slow and gave up the request: try again later")
        if self.job_table.cancelled(job):
            raise Cancelled
        if self.job_table.abandoned(job):
            raise Cancelled("the client did not renew its lease (job_lease_ms): the request ended")
        if self.job_table.expired(job):
            raise DeadlineExceeded
        if self.closed or self.job_table.draining:
            raise Unavailable("the server is stopping")

    def task(self, job: JobRef, call: FailableCall, priority: int, work: Callable[[], None]) -> Task:
        """`work` for a WorkerPool. It is removed from the queue when `check` raises; an error answers the call."""
        return Task(priority, work, lambda: self.check(job), lambda error: self.fail(job, call, error))

    def report(self, job: JobRef, state: State, step: int = 0, of: int = 0) -> None:
        self.job_table.report(job, self.stage, state, step, of)
        self._states.report(job.id, state)

    def fail(self, job: JobRef | None, call: FailableCall, error: BaseException) -> None:
        """Answer a call with an error. Anything but a StageError is logged, and answered as Internal without its
        trace."""
        if not isinstance(error, StageError):
            log.error("%s failed", self.stage, exc_info=error)
            error = Internal(f"{self.stage} failed ({type(error).__name__}); the server's log says more")
        if job is not None:
            self.report(job, State.CANCELLED if isinstance(error, Cancelled) else State.FAILED)
        call.fail(error)
