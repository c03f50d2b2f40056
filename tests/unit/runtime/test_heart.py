"""The heartbeat: what a stage does, and whether it has stopped working on what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from runtime.jobs import long_lived
from runtime.jobs.activity import Activity, Running, RunningWork
from runtime.jobs.heartbeats import Beat
from runtime.jobs.job_table import JobTable
from runtime.jobs.long_lived import start_thread
from runtime.triton import heart
from runtime.triton.heart import Heart


class Scripted:
    """A worker with a queue and running work as the test sets them."""

    def __init__(self, queued: int = 0, running: tuple[Running, ...] = ()) -> None:
        self.queued, self.running = queued, running

    def close(self) -> None:
        """The worker has no threads."""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "BEAT_SECONDS", 0.01)


def _until(job_table: JobTable, holds: Callable[[Beat], bool]) -> Beat:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        beat = job_table.heartbeats.read().get("denoiser")
        if beat is not None and holds(beat):
            return beat
        time.sleep(0.01)
    raise AssertionError(f"no such heartbeat; the last one: {job_table.heartbeats.read()}")


def test_the_activity_of_all_workers_is_one() -> None:
    workers = (Scripted(2, (Running("late", 9.0),)), Scripted(1, (Running("early", 3.0),)), Scripted())
    assert Activity.of(workers) == Activity(3, Running("early", 3.0))
    assert Activity.of(()) == Activity(0, None)


def test_work_runs_until_its_context_ends() -> None:
    work = RunningWork()
    with pytest.raises(ValueError, match="x"), work.of("call"):
        assert [item.what for item in work.all()] == ["call"]
        raise ValueError("x")
    assert work.all() == []


def test_a_stage_is_ready_when_it_says_so(job_table: JobTable) -> None:
    beating = Heart(job_table, "denoiser")
    assert not _until(job_table, lambda beat: True).ready
    worker = Scripted(4, (Running("engine call", 12.5),))
    beating.ready((worker,))
    beat = _until(job_table, lambda beat: beat.ready)
    assert (beat.activity, beat.idle_beats) == (Activity(4, Running("engine call", 12.5)), 0)
    beating.stop()


def test_idle_beats_count_while_work_waits_and_none_runs(job_table: JobTable) -> None:
    worker = Scripted(1)
    beating = Heart(job_table, "denoiser")
    beating.ready((worker,))
    _until(job_table, lambda beat: beat.idle_beats >= 5)
    worker.running = (Running("engine call", 1.0),)
    _until(job_table, lambda beat: beat.idle_beats == 0)
    worker.running = ()
    _until(job_table, lambda beat: beat.idle_beats >= 2)
    worker.queued = 0
    _until(job_table, lambda beat: beat.idle_beats == 0)
    beating.stop()


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(0), KeyboardInterrupt()])
def test_a_thread_that_fails_ends_its_process(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(long_lived, "end_process", ended.set)

    def run() -> None:
        raise error

    start_thread(run, "x").join()
    assert ended.is_set()


def test_a_thread_that_returns_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(long_lived, "end_process", ended.set)
    start_thread(lambda: None, "x").join()
    assert not ended.is_set()


def test_a_stage_ends_with_its_parent(job_table: JobTable, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(heart, "end_process", ended.set)
    beating = Heart(job_table, "denoiser")
    _until(job_table, lambda beat: True)
    assert not ended.is_set()
    monkeypatch.setattr("os.getppid", lambda: -1)
    assert ended.wait(10)
    beating.stop()
