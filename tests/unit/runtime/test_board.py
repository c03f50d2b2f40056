"""The board: what one process writes, all others read, and nobody takes one job's record for another's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.board import LOST_SECONDS, SLOTS, STAGES, Board, JobRef, Progress, State

NEVER = Progress(State.WAITING, None, 0, 0)


def _open(board: Board, request_id: str = "", token: str = "", limit: int = SLOTS) -> JobRef:
    job = board.open(request_id, token, limit)
    assert job is not None
    return job


def _finish(board: Board, job: JobRef) -> None:
    board.report(job, "finish", State.DONE)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The board's clock: its one element."""
    now = [1000.0]
    monkeypatch.setattr("runtime.board.time.monotonic", lambda: now[0])
    return now


def test_two_views_of_one_file_agree(board: Board, tmp_path: Path) -> None:
    other = Board(tmp_path / "board")
    job = _open(board, "a", "secret")
    other.report(job, "denoiser", State.RUNNING, 3, 9)
    other.beat("denoiser", 42, ready=True)
    board.cancel(job)
    assert board.progress(job) == Progress(State.RUNNING, "denoiser", 3, 9)
    assert board.beats()["denoiser"][::2] == (42, True)
    assert other.cancelled(job)
    assert other.find("a", "secret") == job


def test_another_process_sees_it_too(board: Board, tmp_path: Path) -> None:
    job = _open(board, "a", "secret")
    script = (
        "import sys; from pathlib import Path; from runtime.board import Board, State\n"
        "board = Board(Path(sys.argv[1])); job = board.find('a', 'secret')\n"
        "board.report(job, 'vae_encoder', State.RUNNING, 1, 2); board.drain()"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "board"], check=True)
    assert board.progress(job) == Progress(State.RUNNING, "vae_encoder", 1, 2)
    assert board.draining


def test_nobody_else_can_read_the_board(board: Board, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "board").stat().st_mode) == 0o600


def test_a_new_board_is_empty(board: Board) -> None:
    assert (board.beats(), board.live(), board.draining) == ({}, [], False)


def test_a_beat_tells_its_age(board: Board, clock: list[float]) -> None:
    board.beat("jobs", os.getpid(), ready=False)
    clock[0] += 7
    assert board.beats() == {"jobs": (os.getpid(), 7.0, False)}


def test_no_more_jobs_than_the_limit(board: Board) -> None:
    first = _open(board, limit=2)
    _open(board, limit=2)
    assert board.open("", "", 2) is None
    _finish(board, first)
    _open(board, limit=2)


def test_every_slot_can_be_taken(board: Board) -> None:
    jobs = [_open(board) for _ in range(SLOTS)]
    assert {job.slot for job in jobs} == set(range(SLOTS))
    assert len({job.id for job in jobs}) == SLOTS
    assert board.open("", "", SLOTS) is None


def test_a_live_job_has_its_request_id_alone(board: Board) -> None:
    job = _open(board, "a", "secret")
    with pytest.raises(ValueError, match="a"):
        board.open("a", "other", SLOTS)
    _finish(board, job)
    assert _open(board, "a", "other") != job


@pytest.mark.parametrize(("request_id", "token"), [("", ""), ("a", ""), ("", "secret")])
def test_a_job_without_id_or_token_cannot_be_addressed(board: Board, request_id: str, token: str) -> None:
    _open(board, request_id, token)
    _open(board, request_id, token)
    assert board.find(request_id, token) is None


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_failed_anywhere_has_ended(board: Board, stage: str, state: State) -> None:
    job = _open(board)
    board.report(job, stage, state, 3, 9)
    assert board.live() == []
    assert board.progress(job) == Progress(state, stage, 3, 9)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "finish"])
def test_a_job_that_one_stage_has_done_is_still_running(board: Board, stage: str) -> None:
    job = _open(board)
    board.report(job, stage, State.DONE)
    assert board.live() == [job]
    assert board.progress(job).state == State.RUNNING


def test_a_job_that_all_have_left_for_long_is_lost(board: Board, clock: list[float]) -> None:
    job = _open(board)
    clock[0] += LOST_SECONDS - 1
    assert board.live() == [job]
    clock[0] += 2
    assert board.live() == []


def test_a_job_that_a_stage_holds_is_never_lost(board: Board, clock: list[float]) -> None:
    job = _open(board)
    board.report(job, "denoiser", State.RUNNING, 0, 9)
    clock[0] += 1000 * LOST_SECONDS
    assert board.live() == [job]


def test_only_the_right_token_finds_a_job(board: Board) -> None:
    job = _open(board, "a", "secret")
    assert board.find("a", "secret") == job
    assert [board.find("a", token) for token in ("", "Secret", "secret\0", "x" * 255)] == [None] * 4
    assert board.find("b", "secret") is None


def test_the_newest_job_of_an_id_is_found(board: Board, clock: list[float]) -> None:
    old = _open(board, "a", "secret")
    _finish(board, old)
    clock[0] += 1
    new = _open(board, "a", "other")
    assert board.find("a", "other") == new
    assert board.find("a", "secret") is None


def test_an_ended_job_can_still_be_asked_about(board: Board, clock: list[float]) -> None:
    job = _open(board, "a", "secret")
    _finish(board, job)
    for _ in range(SLOTS - 1):
        clock[0] += 1
        _finish(board, _open(board))
    assert board.find("a", "secret") == job
    clock[0] += 1
    assert _open(board).slot == job.slot
    assert board.find("a", "secret") is None


@pytest.fixture
def reused(board: Board, clock: list[float]) -> tuple[JobRef, JobRef]:
    """A job that ended, and the one that got its slot."""
    old = _open(board)
    for stage in STAGES:
        board.report(old, stage, State.DONE, 9, 9)
    for _ in range(SLOTS - 1):
        clock[0] += 1
        _open(board)
    clock[0] += 1
    new = _open(board)
    assert new.slot == old.slot
    return old, new


def test_what_an_earlier_job_left_is_not_the_new_ones(board: Board, reused: tuple[JobRef, JobRef]) -> None:
    _, new = reused
    assert new in board.live()
    assert board.progress(new) == NEVER


def test_a_cancel_does_not_hit_the_slots_next_job(board: Board, reused: tuple[JobRef, JobRef]) -> None:
    old, new = reused
    board.cancel(old)
    assert not board.cancelled(new)
    board.cancel(new)
    assert board.cancelled(new)


def test_a_late_report_of_an_earlier_job_does_not_end_the_new_one(board: Board, reused: tuple[JobRef, JobRef]) -> None:
    old, new = reused
    board.report(old, "denoiser", State.FAILED)
    assert new in board.live()
    assert board.progress(new) == NEVER


def test_progress_is_that_of_the_furthest_stage(board: Board) -> None:
    job = _open(board)
    found = [board.progress(job)]
    course = [
        ("prepare", State.DONE, 0, 0),
        ("text_encoder", State.WAITING, 0, 0),
        ("denoiser", State.RUNNING, 4, 9),
        ("vae_decoder", State.RUNNING, 0, 0),
        ("finish", State.DONE, 0, 0),
    ]
    for stage, state, step, of in course:
        board.report(job, stage, state, step, of)
        found.append(board.progress(job))
    assert found == [
        NEVER,
        Progress(State.RUNNING, "prepare", 0, 0),
        Progress(State.WAITING, "text_encoder", 0, 0),
        Progress(State.RUNNING, "denoiser", 4, 9),
        Progress(State.RUNNING, "vae_decoder", 0, 0),
        Progress(State.DONE, "finish", 0, 0),
    ]


def test_a_job_expires_when_its_deadline_has_passed(board: Board, clock: list[float]) -> None:
    timed, endless = board.open("", "", SLOTS, deadline=1005.0), board.open("", "", SLOTS)
    assert timed and endless
    assert not board.expired(timed)
    clock[0] = 1005.5
    assert board.expired(timed)
    assert not board.expired(endless)
    assert not board.expired(JobRef(timed.id + 2, timed.slot)), "the slot's next owner has a time of its own"
