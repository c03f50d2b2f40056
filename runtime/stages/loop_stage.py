"""LoopStage: the base class of the stages whose jobs share an engine in turn, call by call.

A loader thread prepares jobs, the step loop runs them, and a thread sends their answers.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from runtime.engines.engine import never_cancelled
from runtime.jobs.activity import Worker
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.worker_pool import Task, WorkerPool
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array, Call
from runtime.stages.plan_stage import PlanStage
from runtime.stages.seal import check_seal
from runtime.stages.step_loop.member import Member, SteppingJob
from runtime.stages.step_loop.step_loop import StepLoop

AnyJob = TypeVar("AnyJob", bound=SteppingJob)


class LoopStage(PlanStage, Generic[AnyJob]):
    """Runs at most `slots` jobs at a time. Further ones wait, by priority, then in order of arrival."""

    def __init__(
        self,
        settings: Settings,
        job_table: JobTable,
        *,
        slots: int,
        calls_per_turn: int,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """`calls_per_turn`: see `StepLoop`. `begin`: the loader thread calls it first."""
        self._slots = threading.Semaphore(slots)
        super().__init__(settings, job_table, WorkerPool(1, "loader", self._slots, begin=begin))
        self._answers = WorkerPool(1, "answers")
        self._loop = StepLoop(calls_per_turn, self._count_call)

    @property
    def workers(self) -> tuple[Worker, ...]:
        return (*super().workers, self._loop, self._answers)

    @abstractmethod
    def _make_job(self, plan: Plan, call: Call, check_cancelled: Callable[[], None]) -> AnyJob:
        """Prepare a job and its weights. Raises a StageError, and what `check_cancelled` raises."""

    @abstractmethod
    def _outputs(self, plan: Plan, call: Call, job: AnyJob) -> dict[str, Array]:
        """The stage's outputs for a job that is done. The job has released its bindings. Raises a StageError."""

    def _count_call(self, rows: int, seconds: float) -> None:
        """Called after each engine call with its rows, without padding. Returns at once."""

    def _count_step(self) -> None:
        """Called after each step of a job. Returns at once."""

    def _work(self, plan: Plan, call: Call) -> None:
        """Prepare a job and add it to the loop. The end of the job frees its slot."""
        try:
            member = self._member(plan, call)
        except BaseException:
            self._slots.release()
            raise
        self.reporter.report(plan.job, State.RUNNING, 0, member.job.steps)
        self._loop.add(member)

    def _member(self, plan: Plan, call: Call) -> Member:
        def check_cancelled() -> None:
            self.reporter.check(plan.job)

        def on_step(step: int, steps: int) -> None:
            self.reporter.report(plan.job, State.RUNNING, step, steps)
            self._count_step()

        check_cancelled()
        check_seal(self.job_table.key, plan.job, call)
        job = self._make_job(plan, call, check_cancelled)
        return Member(
            job=job,
            check_cancelled=check_cancelled,
            on_step=on_step,
            on_end=lambda member, error: self._end(plan, call, job, member.seconds, error),
        )

    def _end(self, plan: Plan, call: Call, job: AnyJob, seconds: float, error: BaseException | None) -> None:
        """Called by the loop, which must not wait for the answer to be copied and sent."""
        self._slots.release()
        call.report.timings[self.name] = seconds

        def fail(failure: BaseException) -> None:
            self.reporter.fail(plan.job, call, failure)

        # The error is not raised again: its traceback and that frame would keep each other, and the job.
        work = partial(self._answer, plan, call, job) if error is None else partial(fail, error)
        self._answers.submit(Task(plan.priority, work, check_cancelled=never_cancelled, fail=fail))

    def _answer(self, plan: Plan, call: Call, job: AnyJob) -> None:
        outputs = self._outputs(plan, call, job)
        self.reporter.report(plan.job, State.DONE, job.steps_done, job.steps)
        self._reply(plan.job, call, outputs)
