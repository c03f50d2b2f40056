"""The values of a stage's metrics, and the states of its requests."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from runtime.jobs.job_table import STAGES, State
from runtime.metrics import request_states
from runtime.metrics.definition import CODES, STAGE, Definition
from runtime.metrics.prometheus_text import prometheus_text
from runtime.metrics.request_states import RequestStates
from runtime.metrics.stage_definitions import (
    ANSWERS,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    STAGE_DEFINITIONS,
    STAGE_SECONDS,
    STEPS,
    STORE_BYTES,
    WAIT_SECONDS,
)
from runtime.metrics.stage_metrics import StageMetrics
from runtime.stage_errors import StageError
from runtime.supervisor.status_definitions import RESTARTS, STATUS_DEFINITIONS, UP


@pytest.fixture
def metrics() -> StageMetrics:
    return StageMetrics("denoiser")


def _values(metrics: StageMetrics) -> dict[Definition, Any]:
    """Value or observations, of definitions that have one series."""
    return {one.series.definition: one.observations or one.value for one in metrics.take()}


def test_a_declared_series_is_there_before_the_first_event(metrics: StageMetrics) -> None:
    metrics.declare(ANSWERS, STAGE_SECONDS)
    assert [sample.series for sample in metrics.take()] == [
        *(ANSWERS.series(stage="denoiser", code=code) for code in CODES),
        STAGE_SECONDS.series(stage="denoiser"),
    ]


def test_counts_add_up(metrics: StageMetrics) -> None:
    metrics.declare(ANSWERS, STEPS)
    for _ in range(3):
        metrics.count(ANSWERS, code="OK")
    metrics.count(STEPS, 2.5)
    found = {one.series: one.value for one in metrics.take()}
    assert found[ANSWERS.series(stage="denoiser", code="OK")] == 3
    assert found[ANSWERS.series(stage="denoiser", code="INTERNAL")] == 0
    assert found[STEPS.series(stage="denoiser")] == 2.5


def test_a_watched_value_is_read_at_each_publication(metrics: StageMetrics) -> None:
    sizes = iter((7, 9))
    metrics.watch(STORE_BYTES, lambda: next(sizes))
    assert [_values(metrics)[STORE_BYTES] for _ in range(2)] == [7.0, 9.0]


def test_observations_are_taken_once(metrics: StageMetrics) -> None:
    metrics.declare(STAGE_SECONDS)
    metrics.observe(STAGE_SECONDS, 1.5)
    metrics.observe(STAGE_SECONDS, 0.5)
    taken = metrics.take()
    metrics.observe(STAGE_SECONDS, 3.0)
    assert taken[0].observations == [1.5, 0.5]
    assert [metrics.take()[0].observations for _ in range(2)] == [[3.0], []]


def test_observations_that_nothing_publishes_do_not_fill_the_memory(
    metrics: StageMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.metrics.stage_metrics._MAX_OBSERVATIONS", 5)
    metrics.declare(STAGE_SECONDS)
    for _ in range(9):
        metrics.observe(STAGE_SECONDS, 1.0)
    assert len(metrics.take()[0].observations) == 5


@pytest.mark.parametrize(
    "labels", [{}, {"code": "a red fish"}, {"code": "OK", "prompt": "a red fish"}, {"code": "OK", "stage": "fish"}]
)
def test_labels_that_are_not_defined_are_refused(metrics: StageMetrics, labels: dict[str, str]) -> None:
    """A label's value must never come from a request."""
    metrics.declare(ANSWERS)
    with pytest.raises((ValueError, TypeError)):
        metrics.count(ANSWERS, **labels)


def test_every_error_of_a_stage_has_a_code_that_is_counted() -> None:
    assert {error.code for error in StageError.__subclasses__()} <= set(CODES)


def test_many_threads_count_without_loss(metrics: StageMetrics) -> None:
    metrics.declare(STEPS, STAGE_SECONDS)
    taken: list[float] = []

    def work() -> None:
        for _ in range(500):
            metrics.count(STEPS)
            metrics.observe(STAGE_SECONDS, 1.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += metrics.take()[-1].observations
    *_, last = metrics.take()
    assert len([*taken, *last.observations]) == 4000
    assert _values(metrics)[STEPS] == 4000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(request_states, "time", found)
    return found


def test_a_request_waits_then_runs_then_is_done(metrics: StageMetrics, clock: Clock) -> None:
    states = RequestStates(metrics)
    states.report(1, State.WAITING)
    states.report(2, State.WAITING)
    clock.now += 3
    states.report(1, State.RUNNING)
    found = _values(metrics)
    assert (found[REQUESTS_WAITING], found[REQUESTS_RUNNING], found[WAIT_SECONDS]) == (1, 1, [3.0])
    for _ in range(4):  # the denoiser reports each step
        clock.now += 1
        states.report(1, State.RUNNING)
    states.report(1, State.DONE)
    found = _values(metrics)
    assert (found[REQUESTS_WAITING], found[REQUESTS_RUNNING]) == (1, 0)
    assert (found[WAIT_SECONDS], found[STAGE_SECONDS]) == (0.0, [4.0])


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("before", [[State.WAITING], [State.WAITING, State.RUNNING], []])
def test_a_request_that_fails_is_gone_and_not_measured(
    metrics: StageMetrics, clock: Clock, end: State, before: list[State]
) -> None:
    states = RequestStates(metrics)
    for state in (*before, end, end):
        states.report(1, state)
    found = _values(metrics)
    assert (found[REQUESTS_WAITING], found[REQUESTS_RUNNING], found[STAGE_SECONDS]) == (0, 0, 0.0)


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [one.name for one in (*STAGE_DEFINITIONS, *STATUS_DEFINITIONS)]
    assert len(set(names)) == len(names)
    for one in (*STAGE_DEFINITIONS, *STATUS_DEFINITIONS):
        assert re.fullmatch(r"lorikeet_[a-z_]+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert bool(one.buckets) == (one.kind == "histogram")
        assert list(one.buckets) == sorted(one.buckets)
        assert one.meaning.endswith(".") and "\n" not in one.meaning and "\\" not in one.meaning
        assert "stage" not in one.labels or one.labels["stage"] == STAGES
    assert all(one.labels.keys() >= STAGE.keys() for one in STAGE_DEFINITIONS)


def test_the_text_has_help_and_type_once_for_each_metric() -> None:
    text = prometheus_text(
        {UP.series(): True, RESTARTS.series(reason="stage_ended"): 2, RESTARTS.series(reason="stage_idle"): 0.5}
    )
    assert text.splitlines() == [
        f"# HELP lorikeet_up {UP.meaning}",
        "# TYPE lorikeet_up gauge",
        "lorikeet_up 1.0",
        f"# HELP lorikeet_restarts_total {RESTARTS.meaning}",
        "# TYPE lorikeet_restarts_total counter",
        'lorikeet_restarts_total{reason="stage_ended"} 2.0',
        'lorikeet_restarts_total{reason="stage_idle"} 0.5',
    ]
