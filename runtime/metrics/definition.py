"""What a metric is: its name, kind, labels and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, NamedTuple

from lorikeet.protocol import errors
from runtime.jobs.job_table import STAGES

MetricKind = Literal["counter", "gauge", "histogram"]

STAGE: dict[str, tuple[str, ...]] = {"stage": STAGES}
OK = "OK"
# The answers of a stage. A timeout has a code of its own here: Triton answers CANCELLED.
CODES = (
    OK,
    errors.INVALID_ARG,
    errors.NOT_FOUND,
    errors.UNAVAILABLE,
    errors.CANCELLED,
    errors.DEADLINE_EXCEEDED,
    errors.INTERNAL,
)


@dataclass(frozen=True, eq=False)
class Definition:
    """A metric. `name` follows Prometheus' conventions: base units, and `_total` for a counter.

    `labels`: the values that each label may have; they never come from a request. `buckets`: a histogram's upper
    bounds, without the infinite one.
    """

    name: str
    kind: MetricKind
    meaning: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    def series(self, **given: str) -> Series:
        """The series with these labels. Raises ValueError when a label or its value is not in the definition."""
        if given.keys() != self.labels.keys() or any(given[name] not in self.labels[name] for name in given):
            raise ValueError(f"{self.name} has no series {given}")
        return Series(self, tuple((name, given[name]) for name in self.labels))

    def all_series(self, **given: str) -> list[Series]:
        """Every series with these labels, one for each combination of the other labels' values."""
        values = [(given[name],) if name in given else self.labels[name] for name in self.labels]
        return [self.series(**dict(zip(self.labels, row, strict=True))) for row in product(*values)]


class Series(NamedTuple):
    """One time series of a metric: its labels, as pairs of name and value."""

    definition: Definition
    labels: tuple[tuple[str, str], ...]
