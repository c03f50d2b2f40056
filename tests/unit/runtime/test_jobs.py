"""`jobs`: progress and cancel, for whoever knows a request's id and token."""

from __future__ import annotations

import json

import pytest

from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, NotFound
from runtime.stages.jobs import JobsStage
from tests.unit.runtime.plans import Answer, make_call, text_tensor


def _jobs(job_table: JobTable, settings: Settings, body: str | bytes) -> Answer:
    call, answer = make_call({"REQUEST": text_tensor(body)})
    JobsStage(settings, job_table).submit(call)
    return answer


def _job_request(action: str, request_id: str = "a", job_token: str = "secret") -> str:
    return json.dumps({"action": action, "request_id": request_id, "job_token": job_token})


def test_progress_is_told_to_who_knows_the_token(settings: Settings, job_table: JobTable, job: JobRef) -> None:
    job_table.report(job, "denoiser", State.RUNNING, 3, 9)
    answer = json.loads(_jobs(job_table, settings, _job_request("progress")).tensors["RESPONSE"][0])
    assert answer == {"status": "running", "stage": "denoiser", "step": 3, "of": 9}
    assert not job_table.cancelled(job)


def test_cancel_marks_the_job(settings: Settings, job_table: JobTable, job: JobRef) -> None:
    assert _jobs(job_table, settings, _job_request("cancel")).tensors
    assert job_table.cancelled(job)


@pytest.mark.parametrize("action", ["progress", "cancel"])
@pytest.mark.parametrize(("request_id", "token"), [("a", "wrong"), ("b", "secret")])
def test_a_wrong_token_and_an_unknown_id_are_the_same(
    settings: Settings, job_table: JobTable, job: JobRef, action: str, request_id: str, token: str
) -> None:
    error = _jobs(job_table, settings, _job_request(action, request_id, token)).error
    assert isinstance(error, NotFound)
    assert str(error) == "no request with this id and token"
    assert not job_table.cancelled(job)


@pytest.mark.parametrize("body", ["", "{", "[]", _job_request("stop"), _job_request("cancel", job_token=""), "\x00"])
def test_what_is_no_job_request_is_refused(settings: Settings, job_table: JobTable, body: str) -> None:
    assert isinstance(_jobs(job_table, settings, body).error, InvalidArgument)


def test_a_job_request_may_have_4096_bytes(settings: Settings, job_table: JobTable, job: JobRef) -> None:
    body = _job_request("progress").ljust(4096)
    assert _jobs(job_table, settings, body).tensors
    assert str(_jobs(job_table, settings, body + " ").error) == "REQUEST: 4097 bytes, expected at most 4096"
