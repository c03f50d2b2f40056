"""The publisher, over a stand-in for Triton's metrics."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from runtime.metrics.definition import CODES
from runtime.metrics.stage_definitions import ANSWERS, STAGE_SECONDS, STEPS, STORE_BYTES
from runtime.metrics.stage_metrics import StageMetrics
from runtime.settings import ROOT

STUB = threading.Lock()


class Metric:
    """Refuses what Triton's metric refuses, and calls without the lock."""

    def __init__(self, family: MetricFamily, labels: dict[str, str], buckets: list[float] | None) -> None:
        assert STUB.locked()
        assert isinstance(labels, dict) and (isinstance(buckets, list) == (family.kind == "histogram"))
        self.kind, self.labels, self.buckets = family.kind, labels, buckets
        self.total, self.observed = 0.0, list[float]()
        self.calls = 0

    def increment(self, value: float) -> None:
        assert self.kind == "counter" and value > 0
        self._call()
        self.total += value

    def set(self, value: float) -> None:
        assert self.kind == "gauge"
        self._call()
        self.total = value

    def observe(self, value: float) -> None:
        assert self.kind == "histogram"
        self._call()
        self.observed.append(value)

    def _call(self) -> None:
        assert STUB.locked()
        self.calls += 1
        if MetricFamily.is_full:
            raise RuntimeError("Failed to increase the shared memory pool size")


class MetricFamily:
    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
    families: dict[str, MetricFamily]
    is_full = False

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert STUB.locked() and name not in self.families
        self.kind, self.description = kind, description
        self.metrics: list[Metric] = []
        self.families[name] = self

    def Metric(self, labels: dict[str, str], buckets: list[float] | None) -> Metric:  # noqa: N802 (Triton's name)
        self.metrics.append(Metric(self, labels, buckets))
        return self.metrics[-1]


Families = dict[str, MetricFamily]


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Families:
    found: Families = {}
    monkeypatch.setattr(MetricFamily, "families", found, raising=False)
    return found


@pytest.fixture
def metrics() -> StageMetrics:
    return StageMetrics("denoiser")


@pytest.fixture
def publisher(families: Families, metrics: StageMetrics, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fake = ModuleType("triton_python_backend_utils")
    fake.__dict__.update(MetricFamily=MetricFamily, Metric=Metric)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.delitem(sys.modules, "runtime.triton.metrics_publisher", raising=False)
    module = importlib.import_module("runtime.triton.metrics_publisher")
    monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.01)
    found = module.MetricsPublisher(metrics, STUB)
    yield found
    found.stop()
    sys.modules.pop("runtime.triton.metrics_publisher")


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "never published"
        time.sleep(0.01)


def test_series_are_published_from_the_start(publisher: Any, families: Families, metrics: StageMetrics) -> None:
    metrics.declare(ANSWERS, STAGE_SECONDS)
    _until(lambda: len(families) == 2 and len(families[ANSWERS.name].metrics) == len(CODES))
    answers, seconds = families[ANSWERS.name], families[STAGE_SECONDS.name]
    assert [one.labels for one in answers.metrics] == [{"stage": "denoiser", "code": code} for code in CODES]
    assert (answers.kind, answers.description) == ("counter", ANSWERS.meaning)
    assert seconds.metrics[0].buckets == list(STAGE_SECONDS.buckets)


def test_values_are_those_counted(publisher: Any, families: Families, metrics: StageMetrics) -> None:
    size = [5.0]
    metrics.declare(STEPS, STAGE_SECONDS)
    metrics.watch(STORE_BYTES, lambda: size[0])
    metrics.count(STEPS, 3)
    _until(lambda: STEPS.name in families and families[STEPS.name].metrics[0].total == 3)
    metrics.count(STEPS, 0.5)
    metrics.observe(STAGE_SECONDS, 1.5)
    metrics.observe(STAGE_SECONDS, 2.5)
    size[0] = 2.0
    _until(lambda: families[STAGE_SECONDS.name].metrics[0].observed == [1.5, 2.5])
    _until(lambda: families[STORE_BYTES.name].metrics[0].total == 2.0)
    _until(lambda: families[STEPS.name].metrics[0].total == 3.5)


def test_what_has_not_changed_is_not_published_again(publisher: Any, families: Families, metrics: StageMetrics) -> None:
    metrics.watch(STORE_BYTES, lambda: 5.0)
    _until(lambda: STORE_BYTES.name in families and families[STORE_BYTES.name].metrics[0].calls == 1)
    time.sleep(0.1)
    assert families[STORE_BYTES.name].metrics[0].calls == 1


def test_a_failure_is_logged_once_and_publishing_goes_on(
    publisher: Any, families: Families, metrics: StageMetrics, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    metrics.declare(STEPS)
    _until(lambda: STEPS.name in families and bool(families[STEPS.name].metrics))
    with caplog.at_level(logging.ERROR, "lorikeet"):
        monkeypatch.setattr(MetricFamily, "is_full", True)
        metrics.count(STEPS, 2)
        _until(lambda: families[STEPS.name].metrics[0].calls > 3)
        assert families[STEPS.name].metrics[0].total == 0
        monkeypatch.setattr(MetricFamily, "is_full", False)
        _until(lambda: families[STEPS.name].metrics[0].total == 2)
    assert caplog.text.count("the metrics cannot be published") == 1


def test_nothing_is_published_after_stop(publisher: Any, families: Families, metrics: StageMetrics) -> None:
    publisher.stop()
    metrics.declare(STEPS)
    time.sleep(0.05)
    assert not families


_STUCK = """
import ctypes, sys, threading
from types import ModuleType
sys.modules["triton_python_backend_utils"] = stub = ModuleType("stub")
stub.Metric = stub.MetricFamily = object
from runtime.metrics.stage_metrics import StageMetrics
from runtime.triton.metrics_publisher import MetricsPublisher
publisher = MetricsPublisher(StageMetrics("prepare"), threading.Lock())
with publisher._call():
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter, as a call to a dead tritonserver
"""


def test_a_call_that_holds_the_interpreter_and_never_returns_ends_the_process() -> None:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _STUCK], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "Timeout (0:00:03)!" in done.stderr, done.stderr
    assert time.monotonic() - begun < 30
