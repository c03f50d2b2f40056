"""Stage: the base class of all stages. A stage is the logic of one Triton model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from runtime.jobs.activity import Worker
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.metrics.stage_metrics import StageMetrics
from runtime.settings import Settings
from runtime.stages.call import Call, Tensors
from runtime.stages.seal import with_seal


class Stage(ABC):
    """Accepts each call without waiting, and answers it later, exactly once."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self.settings, self.job_table = settings, job_table
        self.reporter = JobReporter(self.name, job_table)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """What takes work from queues. The heartbeat reports it, and `close` closes it in this order."""
        return ()

    @property
    def metrics(self) -> StageMetrics:
        """What the stage counts and measures."""
        return self.reporter.metrics

    def submit(self, call: Call) -> None:
        """Accept a call. Returns at once and never raises. Only the stage's Triton thread may call this."""
        try:
            self._accept(call)
        except Exception as error:
            self.reporter.fail(None, call, error)

    def close(self) -> None:
        """End the stage's threads. Calls without an answer get UNAVAILABLE."""
        self.reporter.close()  # from now on the check of each queued job raises, which answers its call
        for worker in self.workers:
            worker.close()

    @abstractmethod
    def _accept(self, call: Call) -> None:
        """Answer the call, or queue its work. The client gets a StageError as raised, and Internal for any other."""

    def _queue(self, pool: WorkerPool, job: JobRef, priority: int, call: Call, work: Callable[[], None]) -> None:
        """Queue the work of a job, which waits from now on. An error answers the call and ends the job."""
        try:
            self.reporter.report(job, State.WAITING)
            pool.submit(self.reporter.task(job, call, priority, work))
        except Exception as error:
            self.reporter.fail(job, call, error)

    def _reply(self, job: JobRef, call: Call, outputs: Tensors) -> None:
        """Answer with the outputs, REPORT and SEAL."""
        call.reply(with_seal(self.job_table.key, job, call.report, outputs))
