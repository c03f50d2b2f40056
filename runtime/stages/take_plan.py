"""Reads the plan of a call. PLAN is a random handle that `prepare` made for a job."""

from __future__ import annotations

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import State
from runtime.jobs.plan_files import PlanFiles
from runtime.plan import Plan
from runtime.stage_errors import Cancelled, InvalidArgument
from runtime.stages.call import Call


def take_plan(reporter: JobReporter, plans: PlanFiles, call: Call) -> Plan:
    """The plan of a call. Reports its job as WAITING. Only the stage's Triton thread may call this.

    Clients can call a stage's model directly. A stage accepts only the handle of a live job, and accepts it once.

    Raises InvalidArgument, and Cancelled when the client has closed its call.
    """
    job = reporter.job_table.by_handle(call.inputs["PLAN"].reshape(-1)[0])
    if job is None:
        raise InvalidArgument("PLAN", f"not a plan of this server: send the request to {IMAGE_MODEL}")
    if reporter.job_table.has_seen(job, reporter.stage):
        raise InvalidArgument("PLAN", f"{reporter.stage} has taken it before: send a new request to {IMAGE_MODEL}")
    try:
        plan = Plan.model_validate_json(plans.read(job))
    except FileNotFoundError as error:
        raise InvalidArgument("PLAN", f"its job has ended: send a new request to {IMAGE_MODEL}") from error
    if call.is_cancelled():
        reporter.report(job, State.CANCELLED)
        raise Cancelled("the client closed its call")
    reporter.report(job, State.WAITING)
    return plan
