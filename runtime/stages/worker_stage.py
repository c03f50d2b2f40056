"""WorkerStage: the base class of the stages that process one job at a time."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import ClassVar

from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call
from runtime.stages.plan_stage import PlanStage
from runtime.stages.seal import check_seal


class WorkerStage(PlanStage):
    """Processes jobs on one thread of its own."""

    is_last: ClassVar[bool] = False  # the last stage's outputs go to the client and have no seal

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        super().__init__(settings, job_table, WorkerPool(1, self.name))

    @abstractmethod
    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        """The stage's outputs for a job.

        Raises a StageError for an error of the request; the client gets Internal for every other exception.
        """

    def _work(self, plan: Plan, call: Call) -> None:
        self.reporter.check(plan.job)
        self.reporter.report(plan.job, State.RUNNING)
        check_seal(self.job_table.key, plan.job, call)
        begun = time.monotonic()
        outputs = self.process(plan, call)
        self.reporter.report(plan.job, State.DONE)
        call.report.timings[self.name] = time.monotonic() - begun
        if self.is_last:
            call.reply(outputs)
        else:
            self._reply(plan.job, call, outputs)
