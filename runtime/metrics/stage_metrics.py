"""The values of one stage's metrics. `runtime/triton` publishes them; this module does not depend on Triton."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.metrics.definition import Definition, Series

_MAX_OBSERVATIONS = 10_000  # of one series between two publications; further ones are lost


@dataclass(frozen=True)
class Sample:
    """A series' value; for a histogram, its observations since the last `take`."""

    series: Series
    value: float = 0.0
    observations: Sequence[float] = ()


class StageMetrics:
    """Counters, gauges and histograms with the label `stage`. Any thread may use it.

    A declared series is published from the start, so that its rate is right from the first event.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._lock = threading.Lock()
        self._counted: dict[Series, float] = {}
        self._watched: dict[Series, Callable[[], float]] = {}
        self._observed: dict[Series, list[float]] = {}

    def declare(self, *definitions: Definition) -> None:
        """Publish all series of these counters and histograms."""
        with self._lock:
            for definition in definitions:
                every = definition.all_series(stage=self._stage)
                if definition.kind == "histogram":
                    self._observed |= {series: [] for series in every}
                else:
                    self._counted |= dict.fromkeys(every, 0.0)

    def watch(self, definition: Definition, read: Callable[[], float]) -> None:
        """Publish what `read` returns: a gauge's value, or a counter's total. Any thread may call `read`."""
        self._watched[definition.series(stage=self._stage)] = read

    def count(self, counter: Definition, amount: float = 1.0, /, **labels: str) -> None:
        """Add to a declared counter. Raises ValueError for labels that its definition does not have."""
        series = counter.series(stage=self._stage, **labels)
        with self._lock:
            self._counted[series] += amount

    def observe(self, histogram: Definition, value: float) -> None:
        """Add an observation to a declared histogram."""
        series = histogram.series(stage=self._stage)
        with self._lock:
            if len(self._observed[series]) < _MAX_OBSERVATIONS:
                self._observed[series].append(value)

    def take(self) -> list[Sample]:
        """A sample of each series. The next call returns later observations only."""
        watched = [Sample(series, float(read())) for series, read in list(self._watched.items())]
        with self._lock:
            counted = [Sample(series, total) for series, total in self._counted.items()]
            observed = [Sample(series, observations=values) for series, values in self._observed.items()]
            self._observed = {series: [] for series in self._observed}
        return [*watched, *counted, *observed]
