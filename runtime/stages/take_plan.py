"""Reads the plan of a call, and refuses a plan that `prepare` did not write."""

from __future__ import annotations

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import State
from runtime.plan import Plan
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Call


def take_plan(reporter: JobReporter, call: Call) -> Plan:
    """The plan of a call. Reports its job as WAITING. Only the stage's Triton thread may call this.

    Clients can call a stage's model directly, and a plan names files that `prepare` has checked. So a stage accepts
    only a plan that `prepare` wrote for a live job, and accepts it once.

    Raises InvalidArgument.
    """
    tensor = call.inputs["PLAN"]
    job = reporter.job_table.sealed(tensor.reshape(-1)[0])
    if job is None:
        raise InvalidArgument("PLAN", f"not a plan of this server: send the request to {IMAGE_MODEL}")
    if reporter.job_table.has_seen(job, reporter.stage):
        raise InvalidArgument("PLAN", f"{reporter.stage} has taken it before: send a new request to {IMAGE_MODEL}")
    reporter.report(job, State.WAITING)
    return Plan.from_tensor(tensor)
