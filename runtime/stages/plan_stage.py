"""PlanStage: the base class of the stages that work on plans. PLAN is a random handle that `prepare` made for a job."""

from __future__ import annotations

from abc import abstractmethod

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.activity import Worker
from runtime.jobs.job_table import JobTable, State
from runtime.jobs.plan_files import PlanFiles
from runtime.jobs.worker_pool import WorkerPool
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, InvalidArgument
from runtime.stages.call import Call
from runtime.stages.stage import Stage


class PlanStage(Stage):
    """Queues each call for a thread of `pool`: by priority, then in order of arrival."""

    def __init__(self, settings: Settings, job_table: JobTable, pool: WorkerPool) -> None:
        super().__init__(settings, job_table)
        self._plans, self._pool = PlanFiles(job_table), pool

    @property
    def workers(self) -> tuple[Worker, ...]:
        return (self._pool,)

    @abstractmethod
    def _work(self, plan: Plan, call: Call) -> None:
        """Answer the call, or hand it over to a thread that will. The client gets a StageError as raised, and Internal
        for any other exception."""

    def _accept(self, call: Call) -> None:
        plan = self._take_plan(call)
        self._queue(self._pool, plan.job, plan.priority, call, lambda: self._work(plan, call))

    def _take_plan(self, call: Call) -> Plan:
        """The plan of a call.

        Clients can call a stage's model directly. A stage accepts only the handle of a live job, and accepts it once.

        Raises InvalidArgument, and Cancelled when the client has closed its call.
        """
        job = self.job_table.by_handle(call.inputs["PLAN"].reshape(-1)[0])
        if job is None:
            raise InvalidArgument("PLAN", f"not a plan of this server: send the request to {IMAGE_MODEL}")
        if self.job_table.has_seen(job, self.name):
            raise InvalidArgument("PLAN", f"{self.name} has taken it before: send a new request to {IMAGE_MODEL}")
        try:
            plan = Plan.model_validate_json(self._plans.read(job))
        except FileNotFoundError as error:
            raise InvalidArgument("PLAN", f"its job has ended: send a new request to {IMAGE_MODEL}") from error
        if call.is_cancelled():
            self.reporter.report(job, State.CANCELLED)
            raise Cancelled("the client closed its call")
        return plan
