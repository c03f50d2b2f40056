"""The Stage protocol, and WorkerStage, the base class of most stages.

A stage accepts a call without waiting, and answers it later, exactly once. A `WorkerStage` processes one call at a time
on its own thread; the denoiser interleaves calls step by step.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from runtime.jobs.activity import Worker
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.plan_files import PlanFiles
from runtime.jobs.worker_pool import WorkerPool
from runtime.metrics.stage_metrics import StageMetrics
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call
from runtime.stages.seal import check_seal, with_seal
from runtime.stages.take_plan import take_plan


class Stage(Protocol):
    """One Triton model's logic."""

    @property
    def workers(self) -> tuple[Worker, ...]:
        """What takes work from queues; the heartbeat reports it."""

    @property
    def metrics(self) -> StageMetrics:
        """What the stage counts and measures."""

    def submit(self, call: Call) -> None:
        """Accept a call. Returns at once and never raises."""

    def close(self) -> None:
        """End the stage's threads. Calls without an answer get UNAVAILABLE."""


class WorkerStage(ABC):
    """A stage that processes one call at a time: by priority, then in order of arrival."""

    name: ClassVar[str]
    is_last: ClassVar[bool] = False  # the last stage's outputs go to the client and have no seal

    def __init__(self, settings: Settings, job_table: JobTable) -> None:
        self.settings, self.reporter = settings, JobReporter(self.name, job_table)
        self._plans = PlanFiles(job_table)
        self._pool = WorkerPool(1, self.name)

    @property
    def workers(self) -> tuple[Worker, ...]:
        return (self._pool,)

    @property
    def metrics(self) -> StageMetrics:
        return self.reporter.metrics

    @abstractmethod
    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        """The stage's outputs for a job.

        Raises a StageError for an error of the request; the client gets Internal for every other exception.
        """

    def submit(self, call: Call) -> None:
        try:
            plan = take_plan(self.reporter, self._plans, call)
            self._pool.submit(self.reporter.task(plan.job, call, plan.priority, lambda: self._work(plan, call)))
        except Exception as error:
            self.reporter.fail(None, call, error)

    def close(self) -> None:
        self.reporter.close()
        self._pool.close()  # the check of each queued call raises, which answers the call

    def _work(self, plan: Plan, call: Call) -> None:
        self.reporter.check(plan.job)
        self.reporter.report(plan.job, State.RUNNING)
        key = self.reporter.job_table.key
        check_seal(key, plan.job, call)
        begun = time.monotonic()
        outputs = self.process(plan, call)
        self.reporter.report(plan.job, State.DONE)
        call.report.timings[self.name] = time.monotonic() - begun
        call.reply(outputs if self.is_last else with_seal(key, plan.job, call.report, outputs))
