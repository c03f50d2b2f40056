"""A watch sees the steps of a job in the job table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.step_watch import StepWatch
from runtime.jobs.job_table import JobRef, JobTable, State


@pytest.fixture
def table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path / "jobs")


def opened(table: JobTable) -> JobRef:
    job = table.open("request", "token", limit=1)
    assert job is not None
    return job


def test_each_step_of_the_denoiser_is_seen_once(table: JobTable) -> None:
    job = opened(table)
    watch = StepWatch(table, job)
    reports = iter([("vae_encoder", 3), ("denoiser", 0), ("denoiser", 1), ("denoiser", 1), ("denoiser", 2)])

    def done() -> bool:
        if report := next(reports, None):
            table.report(job, report[0], State.RUNNING, report[1], 4)
        return report is None

    ended = watch.until(done)
    first, second = watch.times
    assert first < second < ended


def test_a_step_that_ends_between_two_polls_counts(table: JobTable, monkeypatch: pytest.MonkeyPatch) -> None:
    job, clock = opened(table), 100.0
    steps = iter([1, 2, 5, None])

    def sleep(_: float) -> None:
        nonlocal clock
        clock += 8.0
        step = next(steps)
        table.report(job, "denoiser" if step else "vae_decoder", State.RUNNING, step or 0, 5)

    monkeypatch.setattr("benchmarks.step_watch.time.sleep", sleep)
    monkeypatch.setattr("benchmarks.step_watch.time.monotonic", lambda: clock)
    assert StepWatch(table, job).to_the_end() == pytest.approx(16.0 / 4)


def test_the_end_of_the_job_is_an_error(table: JobTable) -> None:
    job = opened(table)
    table.report(job, "denoiser", State.FAILED, 1, 4)
    with pytest.raises(RuntimeError, match="in denoiser, state FAILED"):
        StepWatch(table, job).next_steps(2)
