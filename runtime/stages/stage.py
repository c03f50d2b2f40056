"""What a stage is: it takes calls, returns at once, and answers each call later, exactly once.

`WorkerStage` is the common kind: it works on one call at a time on a thread of its own. The denoiser interleaves calls
step by step.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import WorkerPool
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call, json_tensor
from runtime.stages.take_plan import take_plan


class Stage(Protocol):
    """One Triton model's logic."""

    def submit(self, call: Call) -> None:
        """Take a call; returns at once and never raises."""

    def close(self) -> None:
        """End the stage's threads. Calls that are still open are answered UNAVAILABLE."""


class WorkerStage(ABC):
    """A stage that works on one call at a time: by priority, then in order of arrival."""

    name: ClassVar[str]

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self.settings, self.reporter = settings, JobReporter(self.name, job_table)
        self._workers = WorkerPool(1, self.name)

    @abstractmethod
    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        """The stage's outputs for a job. May raise a StageError, or anything for what is not the request's fault."""

    def submit(self, call: Call) -> None:
        try:
            plan = take_plan(self.reporter, call)
            self._workers.submit(self.reporter.task(plan.job, call, plan.priority, lambda: self._work(plan, call)))
        except Exception as error:
            self.reporter.fail(None, call, error)

    def close(self) -> None:
        self.reporter.close()
        self._workers.close()  # queued calls are answered, because their check raises

    def _work(self, plan: Plan, call: Call) -> None:
        self.reporter.check(plan.job)
        self.reporter.report(plan.job, State.RUNNING)
        begun = time.monotonic()
        outputs = self.process(plan, call)
        self.reporter.report(plan.job, State.DONE)
        call.timings[self.name] = time.monotonic() - begun
        call.reply(outputs | {"REPORT": json_tensor(call.report())})
