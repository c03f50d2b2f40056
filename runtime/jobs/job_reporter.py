"""How a stage reports its progress on a job, and learns that the job must end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.jobs.worker_pool import Task
from runtime.plan import Plan
from runtime.stage_errors import Cancelled, DeadlineExceeded, Internal, InvalidArgument, StageError, Unavailable
from runtime.stages.call import Call

log = logging.getLogger("lorikeet")


class JobReporter:
    """One stage's dealings with the job table: it reports each job's course here, and hears whether to stop."""

    def __init__(self, stage: str, job_table: JobTable) -> None:
        self.stage, self.job_table = stage, job_table
        self.closed = False

    def close(self) -> None:
        """The stage is ending: from now on every check says so."""
        self.closed = True

    def take(self, call: Call) -> Plan:
        """The plan of a call, reported as waiting. Called by Triton's one thread for this stage.

        Clients can call this stage's model themselves. So it takes only what `prepare` wrote for a job of this server,
        and takes it once: a plan names files that were checked, and a place among the requests in flight.

        Raises InvalidArgument."""
        tensor = call.inputs["PLAN"]
        job = self.job_table.sealed(tensor.reshape(-1)[0])
        if job is None:
            raise InvalidArgument("PLAN", f"not made by this server: ask {IMAGE_MODEL}")
        if self.job_table.has_seen(job, self.stage):
            raise InvalidArgument("PLAN", f"{self.stage} has had it already")
        self.report(job, State.WAITING)
        return Plan.from_tensor(tensor)

    def check(self, job: JobRef) -> None:
        """Raises Cancelled when the client cancelled, DeadlineExceeded when the job's time is over, Unavailable when
        the server is stopping."""
        if self.job_table.cancelled(job):
            raise Cancelled
        if self.job_table.expired(job):
            raise DeadlineExceeded
        if self.closed or self.job_table.draining:
            raise Unavailable("the server is stopping")

    def task(self, job: JobRef, call: Call, priority: int, work: Callable[[], None]) -> Task:
        """`work` for a line of workers: stopped when the job is, and answering the call when it fails."""
        return Task(priority, work, lambda: self.check(job), lambda error: self.fail(job, call, error))

    def report(self, job: JobRef, state: State, step: int = 0, of: int = 0) -> None:
        self.job_table.report(job, self.stage, state, step, of)

    def fail(self, job: JobRef | None, call: Call, error: BaseException) -> None:
        """Answer a call with an error; one that is nobody's fault is logged and told without its trace."""
        if not isinstance(error, StageError):
            log.error("%s failed", self.stage, exc_info=error)
            error = Internal(f"{self.stage} failed ({type(error).__name__}); the server's log says more")
        if job is not None:
            self.report(job, State.CANCELLED if isinstance(error, Cancelled) else State.FAILED)
        call.fail(error)
