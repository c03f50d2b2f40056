"""The job table: what one process writes, all others read, and nobody takes one job's record for another's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.jobs.activity import Activity, Running
from runtime.jobs.heartbeats import Beat
from runtime.jobs.job_table import LOST_SECONDS, SLOTS, STAGES, JobRef, JobTable, Progress, State

NEVER = Progress(State.WAITING, None, 0, 0)


def _open(job_table: JobTable, request_id: str = "", token: str = "", limit: int = SLOTS) -> JobRef:
    job = job_table.open(request_id, token, limit)
    assert job is not None
    return job


def _finish(job_table: JobTable, job: JobRef) -> None:
    job_table.report(job, "finish", State.DONE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The job table's clock: its one element."""
    now = [1000.0]
    monkeypatch.setattr("runtime.jobs.job_table.time.monotonic", lambda: now[0])
    return now


def test_two_views_of_one_file_agree(job_table: JobTable, tmp_path: Path) -> None:
    other = JobTable(tmp_path / "job_table")
    job = _open(job_table, "a", "secret")
    other.report(job, "denoiser", State.RUNNING, 3, 9)
    other.heartbeats.write("denoiser", 42, ready=True)
    job_table.cancel(job)
    assert job_table.progress(job) == Progress(State.RUNNING, "denoiser", 3, 9)
    beat = job_table.heartbeats.read()["denoiser"]
    assert (beat.pid, beat.ready) == (42, True)
    assert other.cancelled(job)
    assert other.find("a", "secret") == job


def test_another_process_sees_it_too(job_table: JobTable, tmp_path: Path) -> None:
    job = _open(job_table, "a", "secret")
    script = (
        "import sys; from pathlib import Path; from runtime.jobs.job_table import JobTable, State\n"
        "job_table = JobTable(Path(sys.argv[1])); job = job_table.find('a', 'secret')\n"
        "job_table.report(job, 'vae_encoder', State.RUNNING, 1, 2); job_table.drain()"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "job_table"], check=True)
    assert job_table.progress(job) == Progress(State.RUNNING, "vae_encoder", 1, 2)
    assert job_table.draining


def test_only_the_owner_can_read_the_file(job_table: JobTable, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "job_table").stat().st_mode) == 0o600


def test_a_new_job_table_is_empty(job_table: JobTable) -> None:
    assert (job_table.heartbeats.read(), job_table.live(), job_table.draining) == ({}, [], False)


def test_a_beat_tells_its_age(job_table: JobTable, clock: list[float]) -> None:
    activity = Activity(3, Running("engine call", 990.5))
    job_table.heartbeats.write("jobs", os.getpid(), ready=False, activity=activity, idle_beats=2)
    clock[0] += 7
    assert job_table.heartbeats.read() == {"jobs": Beat(os.getpid(), 7.0, False, activity, 2)}


def test_no_more_jobs_than_the_limit(job_table: JobTable) -> None:
    first = _open(job_table, limit=2)
    _open(job_table, limit=2)
    assert job_table.open("", "", 2) is None
    _finish(job_table, first)
    _open(job_table, limit=2)


def test_every_slot_can_be_taken(job_table: JobTable) -> None:
    jobs = [_open(job_table) for _ in range(SLOTS)]
    assert {job.slot for job in jobs} == set(range(SLOTS))
    assert len({job.id for job in jobs}) == SLOTS
    assert job_table.open("", "", SLOTS) is None


def test_a_clients_live_job_has_its_request_id_alone(job_table: JobTable) -> None:
    job = _open(job_table, "a", "secret")
    with pytest.raises(ValueError, match="a"):
        job_table.open("a", "secret", SLOTS)
    _finish(job_table, job)
    assert _open(job_table, "a", "secret") != job


def test_two_clients_may_use_one_request_id(job_table: JobTable) -> None:
    jobs = {token: _open(job_table, "a", token) for token in ("one", "other")}
    assert {token: job_table.find("a", token) for token in jobs} == jobs


@pytest.mark.parametrize(("request_id", "token"), [("", ""), ("a", ""), ("", "secret")])
def test_a_job_without_id_or_token_cannot_be_addressed(job_table: JobTable, request_id: str, token: str) -> None:
    _open(job_table, request_id, token)
    _open(job_table, request_id, token)
    assert job_table.find(request_id, token) is None


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_failed_anywhere_has_ended(job_table: JobTable, stage: str, state: State) -> None:
    job = _open(job_table)
    job_table.report(job, stage, state, 3, 9)
    assert job_table.live() == []
    assert job_table.progress(job) == Progress(state, stage, 3, 9)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_job_that_fails_keeps_the_steps_that_it_has_done(job_table: JobTable, state: State) -> None:
    job = _open(job_table)
    job_table.report(job, "denoiser", State.RUNNING, 3, 9)
    job_table.report(job, "denoiser", state)
    assert job_table.progress(job) == Progress(state, "denoiser", 3, 9)


def test_a_job_that_fails_does_not_have_the_steps_of_the_slots_earlier_job(
    job_table: JobTable, reused: tuple[JobRef, JobRef]
) -> None:
    _, new = reused
    job_table.report(new, "denoiser", State.FAILED)
    assert job_table.progress(new) == Progress(State.FAILED, "denoiser", 0, 0)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "finish"])
def test_a_job_that_one_stage_has_done_is_still_running(job_table: JobTable, stage: str) -> None:
    job = _open(job_table)
    job_table.report(job, stage, State.DONE)
    assert job_table.live() == [job]
    assert job_table.progress(job).state == State.RUNNING


def test_a_job_that_all_have_left_for_long_is_lost(job_table: JobTable, clock: list[float]) -> None:
    job = _open(job_table)
    clock[0] += LOST_SECONDS - 1
    assert job_table.live() == [job]
    clock[0] += 2
    assert job_table.live() == []


def test_a_job_that_a_stage_holds_is_never_lost(job_table: JobTable, clock: list[float]) -> None:
    job = _open(job_table)
    job_table.report(job, "denoiser", State.RUNNING, 0, 9)
    clock[0] += 1000 * LOST_SECONDS
    assert job_table.live() == [job]


def test_only_the_right_token_finds_a_job(job_table: JobTable) -> None:
    job = _open(job_table, "a", "secret")
    assert job_table.find("a", "secret") == job
    assert [job_table.find("a", token) for token in ("", "Secret", "secret\0", "x" * 255)] == [None] * 4
    assert job_table.find("b", "secret") is None


def test_the_newest_job_of_an_id_is_found(job_table: JobTable, clock: list[float]) -> None:
    old = _open(job_table, "a", "secret")
    _finish(job_table, old)
    clock[0] += 1
    new = _open(job_table, "a", "secret")
    assert job_table.find("a", "secret") == new


def test_an_ended_job_can_still_be_asked_about(job_table: JobTable, clock: list[float]) -> None:
    job = _open(job_table, "a", "secret")
    _finish(job_table, job)
    for _ in range(SLOTS - 1):
        clock[0] += 1
        _finish(job_table, _open(job_table))
    assert job_table.find("a", "secret") == job
    clock[0] += 1
    assert _open(job_table).slot == job.slot
    assert job_table.find("a", "secret") is None


@pytest.fixture
def reused(job_table: JobTable, clock: list[float]) -> tuple[JobRef, JobRef]:
    """A job that ended, and the one that got its slot."""
    old = _open(job_table)
    for stage in STAGES:
        job_table.report(old, stage, State.DONE, 9, 9)
    for _ in range(SLOTS - 1):
        clock[0] += 1
        _open(job_table)
    clock[0] += 1
    new = _open(job_table)
    assert new.slot == old.slot
    return old, new


def test_what_an_earlier_job_left_is_not_the_new_ones(job_table: JobTable, reused: tuple[JobRef, JobRef]) -> None:
    _, new = reused
    assert new in job_table.live()
    assert job_table.progress(new) == NEVER


def test_a_cancel_does_not_hit_the_slots_next_job(job_table: JobTable, reused: tuple[JobRef, JobRef]) -> None:
    old, new = reused
    job_table.cancel(old)
    assert not job_table.cancelled(new)
    job_table.cancel(new)
    assert job_table.cancelled(new)


def test_a_late_report_of_an_earlier_job_does_not_end_the_new_one(
    job_table: JobTable, reused: tuple[JobRef, JobRef]
) -> None:
    old, new = reused
    job_table.report(old, "denoiser", State.FAILED)
    assert new in job_table.live()
    assert job_table.progress(new) == NEVER


def test_progress_is_that_of_the_furthest_stage(job_table: JobTable) -> None:
    job = _open(job_table)
    found = [job_table.progress(job)]
    course = [
        ("prepare", State.DONE, 0, 0),
        ("text_encoder", State.WAITING, 0, 0),
        ("denoiser", State.RUNNING, 4, 9),
        ("vae_decoder", State.RUNNING, 0, 0),
        ("finish", State.DONE, 0, 0),
    ]
    for stage, state, step, of in course:
        job_table.report(job, stage, state, step, of)
        found.append(job_table.progress(job))
    assert found == [
        NEVER,
        Progress(State.RUNNING, "prepare", 0, 0),
        Progress(State.WAITING, "text_encoder", 0, 0),
        Progress(State.RUNNING, "denoiser", 4, 9),
        Progress(State.RUNNING, "vae_decoder", 0, 0),
        Progress(State.DONE, "finish", 0, 0),
    ]


def test_a_job_expires_when_its_deadline_has_passed(job_table: JobTable, clock: list[float]) -> None:
    timed, endless = job_table.open("", "", SLOTS, deadline=1005.0), job_table.open("", "", SLOTS)
    assert timed and endless
    assert not job_table.expired(timed)
    clock[0] = 1005.5
    assert job_table.expired(timed)
    assert not job_table.expired(endless)
    assert not job_table.expired(JobRef(timed.id + 2, timed.slot)), "the slot's next owner has a time of its own"


def test_views_share_one_key_and_tables_have_their_own(job_table: JobTable, tmp_path: Path) -> None:
    assert len(job_table.key) == 32 and any(job_table.key)
    assert JobTable(tmp_path / "job_table").key == job_table.key
    assert JobTable(tmp_path / "another").key != job_table.key


def test_only_a_jobs_handle_finds_it(job_table: JobTable) -> None:
    jobs = [_open(job_table) for _ in range(3)]
    handles = [job_table.make_handle(job) for job in jobs]
    assert len(set(handles)) == 3 and all(len(handle) == 32 for handle in handles)
    assert [job_table.by_handle(handle) for handle in handles] == jobs
    assert [job_table.by_handle(handle) for handle in (b"", b"0" * 32, handles[0][:-1], handles[0] + b"0")] == [
        None
    ] * 4


def test_a_slots_next_job_has_another_handle(job_table: JobTable, clock: list[float]) -> None:
    old = _open(job_table)
    handle = job_table.make_handle(old)
    _finish(job_table, old)
    for _ in range(SLOTS):
        clock[0] += 1
        _finish(job_table, _open(job_table))
    assert job_table.by_handle(handle) is None
    assert not job_table.holds(old)


def _beat_for(job_table: JobTable, clock: list[float], seconds: float) -> None:
    """`jobs` beats once a second for so long."""
    for _ in range(int(seconds)):
        clock[0] += 1
        job_table.heartbeats.write("jobs", 1, ready=True)


def test_a_job_is_abandoned_when_its_lease_is_not_renewed(job_table: JobTable, clock: list[float]) -> None:
    _beat_for(job_table, clock, 60)
    leased, endless = job_table.open("a", "s", SLOTS, lease=10.0), _open(job_table)
    assert leased
    _beat_for(job_table, clock, 9)
    assert not job_table.abandoned(leased)
    job_table.renew(leased)
    _beat_for(job_table, clock, 9)
    assert not job_table.abandoned(leased)
    _beat_for(job_table, clock, 2)
    assert job_table.abandoned(leased)
    assert not job_table.abandoned(endless)
    assert not job_table.abandoned(JobRef(leased.id + 2, leased.slot)), "the slot's next owner has a lease of its own"


def test_no_lease_ends_while_jobs_is_interrupted(job_table: JobTable, clock: list[float]) -> None:
    _beat_for(job_table, clock, 60)
    leased = job_table.open("a", "s", SLOTS, lease=10.0)
    assert leased
    clock[0] += 1000
    assert not job_table.abandoned(leased)
    _beat_for(job_table, clock, 9)
    assert not job_table.abandoned(leased), "its client can renew again only since then"
    _beat_for(job_table, clock, 3)
    assert job_table.abandoned(leased)
