"""Publishes a stage's metrics on Triton's Prometheus port."""

from __future__ import annotations

import faulthandler
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import triton_python_backend_utils as pb_utils

from runtime.jobs.long_lived import start_thread
from runtime.metrics.definition import Definition, Series
from runtime.metrics.stage_metrics import Sample, StageMetrics

log = logging.getLogger("lorikeet")

PUBLISH_SECONDS = 1.0
_STUCK_SECONDS = 3.0  # a call takes milliseconds
_STDERR = 2


@dataclass
class _Published:
    """Triton's metric for one series, and the value that it has."""

    metric: pb_utils.Metric
    value: float = 0.0


class MetricsPublisher:
    """A thread that publishes every second, until `stop`.

    `stub`: guards the calls into Triton. It is held for one call at a time, so that answers do not wait.
    """

    def __init__(self, metrics: StageMetrics, stub: threading.Lock) -> None:
        self._metrics, self._stub = metrics, stub
        self._families: dict[Definition, pb_utils.MetricFamily] = {}
        self._published: dict[Series, _Published] = {}
        self._has_failed = False
        self._stopping = threading.Event()
        self._thread = start_thread(self._run, "metrics")

    def stop(self) -> None:
        """Return when no call into Triton runs."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(PUBLISH_SECONDS):
            try:
                self._publish()
            except Exception:  # a full /dev/shm, for example; requests do not need metrics
                if not self._has_failed:
                    log.exception("the metrics cannot be published; further failures are not logged")
                self._has_failed = True

    @contextmanager
    def _call(self) -> Iterator[None]:
        """One call into Triton. It holds the interpreter until tritonserver answers, and a dead one never does.

        Then no thread could run, not even the heart. So a thread that is not Python's ends the process.
        """
        with self._stub:
            faulthandler.dump_traceback_later(_STUCK_SECONDS, exit=True, file=_STDERR)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()

    def _publish(self) -> None:
        for sample in self._metrics.take():
            published = self._published.get(sample.series) or self._create(sample.series)
            if sample.series.definition.kind == "histogram":
                for observation in sample.observations:
                    with self._call():
                        published.metric.observe(observation)
            elif sample.value != published.value:
                self._set(published, sample)

    def _set(self, published: _Published, sample: Sample) -> None:
        with self._call():
            if sample.series.definition.kind == "gauge":
                published.metric.set(sample.value)
            else:
                published.metric.increment(sample.value - published.value)
        published.value = sample.value

    def _create(self, series: Series) -> _Published:
        definition = series.definition
        with self._call():
            if definition not in self._families:
                kind = getattr(pb_utils.MetricFamily, definition.kind.upper())
                self._families[definition] = pb_utils.MetricFamily(definition.name, definition.meaning, kind)
            buckets = list(definition.buckets) or None
            metric = self._families[definition].Metric(dict(series.labels), buckets)
        self._published[series] = _Published(metric)
        return self._published[series]
