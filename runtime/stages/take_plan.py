"""The plan of a call, accepted only as `prepare` wrote it."""

from __future__ import annotations

from lorikeet.protocol.tensors import IMAGE_MODEL
from runtime.jobs.job_reporter import JobReporter
from runtime.jobs.job_table import State
from runtime.plan import Plan
from runtime.stage_errors import InvalidArgument
from runtime.stages.call import Call


def take_plan(reporter: JobReporter, call: Call) -> Plan:
    """The plan of a call, whose job is then reported as WAITING. Called only by the stage's Triton thread.

    Clients can call a stage's model directly, and a plan names files that `prepare` has checked. So a stage accepts
    only a plan that `prepare` wrote for a live job, and accepts it once.

    Raises InvalidArgument."""
    tensor = call.inputs["PLAN"]
    job = reporter.job_table.sealed(tensor.reshape(-1)[0])
    if job is None:
        raise InvalidArgument("PLAN", f"not made by this server: ask {IMAGE_MODEL}")
    if reporter.job_table.has_seen(job, reporter.stage):
        raise InvalidArgument("PLAN", f"{reporter.stage} has had it already")
    reporter.report(job, State.WAITING)
    return Plan.from_tensor(tensor)
