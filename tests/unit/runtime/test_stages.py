"""Stages without Triton: every call is answered once, and an error says what the client needs, no more."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from lorikeet.schema import EngineReceipt
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    StageError,
    Unavailable,
)
from runtime.stages.call import Array, Call
from runtime.stages.report import Report
from runtime.stages.seal import with_seal
from runtime.stages.worker_stage import WorkerStage
from tests.unit.runtime.plans import Answer, handed_out, make_call, make_plan, submit, text_tensor


def test_the_first_answer_counts() -> None:
    call, answer = make_call({})
    call.reply({})
    call.fail(Internal("late"))
    call.reply({})
    assert answer.tensors == {}


def test_one_of_many_answers_at_once_counts() -> None:
    call, answer = make_call({})
    together = threading.Barrier(8)

    def reply() -> None:
        together.wait()
        call.reply({})

    threads = [threading.Thread(target=reply) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answer.all) == 1


class Scripted(WorkerStage):
    """A stage that does what the test says."""

    name = "text_encoder"
    work: Callable[[], dict[str, Array]] = staticmethod(dict)

    def process(self, plan: Plan, call: Call) -> dict[str, Array]:
        return self.work()


@pytest.fixture
def worker(settings: Settings, job_table: JobTable) -> Iterator[Scripted]:
    stage = Scripted(settings, job_table)
    yield stage
    stage.close()


def test_a_stage_reports_its_course(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    seen = []

    def work() -> dict[str, Array]:
        seen.append(job_table.progress(plan.job))
        return {"OUT": np.zeros(1)}

    worker.work = work
    answer = submit(worker, plan).tensors
    report = json.loads(answer["REPORT"][0])
    assert set(answer) == {"OUT", "REPORT", "SEAL"}
    assert report["timings"].keys() == {"text_encoder"}
    assert (seen[0].state, seen[0].stage) == (State.RUNNING, "text_encoder")


def test_a_report_passes_on_what_the_stages_before_said(worker: Scripted, plan: Plan) -> None:
    before = Report(timings={"prepare": 1.5}, engine=EngineReceipt(name="torch"), warnings=["odd"])
    report = json.loads(submit(worker, plan, report=before).tensors["REPORT"][0])
    assert report["engine"]["name"] == "torch"
    assert report["timings"].keys() == {"prepare", "text_encoder"}
    assert report["timings"]["prepare"] == 1.5
    assert report["warnings"] == ["odd"]


def _raise(error: BaseException) -> Callable[[], dict[str, Array]]:
    def work() -> dict[str, Array]:
        raise error

    return work


def test_an_unexpected_exception_is_logged_and_not_told(
    worker: Scripted, job_table: JobTable, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    worker.work = _raise(RuntimeError("at /home/somebody/secret.py"))
    with caplog.at_level(logging.ERROR, "lorikeet"):
        error = submit(worker, plan).error
    assert (error.code, str(error)) == ("INTERNAL", "text_encoder failed (RuntimeError); the server's log says more")
    assert "secret.py" in caplog.text
    assert job_table.progress(plan.job).state == State.FAILED


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (InvalidArgument("loras[0].path", "does not fit"), "INVALID_ARG", State.FAILED),
        (Unavailable("full"), "UNAVAILABLE", State.FAILED),
        (Cancelled(), "CANCELLED", State.CANCELLED),
        (NotFound("none"), "NOT_FOUND", State.FAILED),
        (SystemExit(1), "INTERNAL", State.FAILED),
        (MemoryError(), "INTERNAL", State.FAILED),
    ],
)
def test_each_error_has_its_code(
    worker: Scripted, job_table: JobTable, plan: Plan, error: BaseException, code: str, state: State
) -> None:
    worker.work = _raise(error)
    found = submit(worker, plan).error
    assert found.code == code
    assert str(found) == str(error) or not isinstance(error, StageError)
    assert job_table.progress(plan.job).state == state


def test_a_stage_works_on_after_an_error(worker: Scripted, plan: Plan) -> None:
    worker.work = _raise(RuntimeError("once"))
    assert isinstance(submit(worker, plan).error, Internal)
    worker.work = dict
    assert submit(worker, plan).tensors.keys() == {"REPORT", "SEAL"}


def test_a_cancelled_job_is_not_begun(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    worker.work = _raise(AssertionError("begun"))
    job_table.cancel(plan.job)
    assert isinstance(submit(worker, plan).error, Cancelled)


def test_a_draining_server_begins_nothing(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    worker.work = _raise(AssertionError("begun"))
    job_table.drain()
    assert isinstance(submit(worker, plan).error, Unavailable)


def test_what_waits_when_a_stage_closes_is_answered(worker: Scripted, plan: Plan) -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> dict[str, Array]:
        begun.set()
        assert go.wait(10)
        return {}

    worker.work = work
    answers = [submit(worker, plan) for _ in range(3)]
    assert begun.wait(10)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker.reporter.closed:
        closing.join(0.01)
    go.set()
    closing.join()
    assert answers[0].tensors.keys() == {"REPORT", "SEAL"}
    assert all(isinstance(answer.error, Unavailable) for answer in answers[1:])


@pytest.mark.parametrize("handle", [b"{}", b"", b"0" * 32, b"\xff" * 32])
def test_a_handle_that_prepare_did_not_make_is_refused(worker: Scripted, plan: Plan, handle: bytes) -> None:
    worker.work = _raise(AssertionError("begun"))
    call, answer = make_call({"PLAN": text_tensor(handle)})
    worker.submit(call)
    assert str(answer.error) == "PLAN: not a plan of this server: send the request to lora_image_to_image"


def test_a_plan_is_taken_once(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    """A client that calls `prepare` itself has a good handle, and one place among the requests in flight."""
    plan, handle = handed_out(job_table, worker.name, plan)
    for _ in range(2):
        call, answer = make_call({"PLAN": handle} | with_seal(job_table.key, plan.job, Report(), {}))
        worker.submit(call)
        answer.wait()
    assert str(answer.error) == "PLAN: text_encoder has taken it before: send a new request to lora_image_to_image"
    assert job_table.progress(plan.job).state == State.RUNNING


SENT = {"A": np.arange(6, dtype=np.float32).reshape(2, 3), "B": np.zeros((0, 4), np.float32)}
FORGED: dict[str, dict[str, Array]] = {
    "another number": {"A": SENT["A"] + np.float32(1e-6)},
    "another shape": {"A": SENT["A"].reshape(3, 2)},
    "another dtype": {"A": SENT["A"].view(np.int32)},
    "a longer one": {"B": np.zeros((1, 4), np.float32)},
    "one that no stage wrote": {"C": SENT["A"]},
    "one in place of another": {"B": SENT["A"]},
    "a report of the client": {"REPORT": text_tensor(Report(timings={"prepare": 0.0}).model_dump_json())},
    "a report that is no JSON": {"REPORT": text_tensor("{")},
    "no seal": {"SEAL": text_tensor("")},
    "a seal that is no text": {"SEAL": text_tensor(b"\xff" * 32)},
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_tensor_that_no_stage_wrote_is_refused(
    worker: Scripted, job_table: JobTable, plan: Plan, forged: str
) -> None:
    worker.work = _raise(AssertionError("begun"))
    plan, handle = handed_out(job_table, worker.name, plan)
    call, answer = make_call({"PLAN": handle} | with_seal(job_table.key, plan.job, Report(), SENT) | FORGED[forged])
    worker.submit(call)
    assert isinstance(answer.error, InvalidArgument)
    assert "for this job: send the request to lora_image_to_image" in str(answer.error)


def test_tensors_of_another_job_or_server_are_refused(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    worker.work = _raise(AssertionError("begun"))
    for key, of in ((job_table.key, JobRef(plan.job.id + 2, plan.job.slot)), (b"k" * 32, None)):
        plan, handle = handed_out(job_table, worker.name, plan)
        call, answer = make_call({"PLAN": handle} | with_seal(key, of or plan.job, Report(), SENT))
        worker.submit(call)
        assert str(answer.error).startswith("SEAL: no stage of this server wrote REPORT for this job")


def test_a_call_that_its_client_closed_ends_its_job(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    worker.work = _raise(AssertionError("begun"))
    plan, handle = handed_out(job_table, worker.name, plan)
    answer = Answer()
    sealed = with_seal(job_table.key, plan.job, Report(), {})
    worker.submit(Call({"PLAN": handle} | sealed, answer.send, is_cancelled=lambda: True))
    assert isinstance(answer.error, Cancelled)
    assert job_table.progress(plan.job).state == State.CANCELLED


def test_a_job_whose_lease_ends_is_not_begun(worker: Scripted, job_table: JobTable, sd15: Checkpoint) -> None:
    worker.work = _raise(AssertionError("begun"))
    job_table.heartbeats.write("jobs", 1, ready=True)
    job = job_table.open("id", "token", 9, lease=0.0)
    time.sleep(0.01)
    assert "did not renew its lease" in str(submit(worker, make_plan(sd15, job)).error)


def test_a_job_that_lost_its_slot_is_not_begun(worker: Scripted, job_table: JobTable, plan: Plan) -> None:
    job_table._jobs["id"][plan.slot] += 2
    with pytest.raises(Unavailable, match="gave up the request"):
        worker.reporter.check(plan.job)


def test_a_job_whose_time_is_over_is_not_begun(worker: Scripted, job_table: JobTable, sd15: Checkpoint) -> None:
    worker.work = _raise(AssertionError("begun"))
    job = job_table.open("", "", 9, deadline=time.monotonic() - 1)
    error = submit(worker, make_plan(sd15, job)).error
    assert (error.code, str(error)) == ("CANCELLED", "DEADLINE_EXCEEDED: the request's job_timeout_ms has passed")


def test_who_waits_is_told_while_another_works(worker: Scripted, job_table: JobTable, sd15: Checkpoint) -> None:
    jobs = [job_table.open("", "", 9, deadline=deadline) for deadline in (math.inf, math.inf, time.monotonic() + 0.2)]
    go = threading.Event()

    def work() -> dict[str, Array]:
        assert go.wait(10)
        return {}

    worker.work = work
    running, cancelled, expired = (submit(worker, make_plan(sd15, job)) for job in jobs)
    assert jobs[1]
    job_table.cancel(jobs[1])
    assert isinstance(cancelled.error, Cancelled)
    assert isinstance(expired.error, DeadlineExceeded)
    assert not running.all
    go.set()
    assert running.tensors


def test_a_higher_priority_overtakes_who_waits_but_not_who_runs(
    worker: Scripted, job_table: JobTable, sd15: Checkpoint
) -> None:
    begun, go, order = threading.Event(), threading.Event(), []

    def process(plan: Plan, call: Call) -> dict[str, Array]:
        order.append(plan.priority)
        begun.set()
        assert go.wait(10)
        return {}

    worker.process = process  # type: ignore[method-assign]
    first = submit(worker, make_plan(sd15, job_table.open("", "", 9), priority=3))
    assert begun.wait(10)
    answers = [submit(worker, make_plan(sd15, job_table.open("", "", 9), priority=p)) for p in (2, 3, 1, 2)]
    go.set()
    assert all(answer.tensors for answer in (first, *answers))
    assert order == [3, 1, 2, 2, 3]
