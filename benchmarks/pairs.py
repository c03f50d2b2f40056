"""Paired timing: on a machine that is shared and noisy, only what alternates within one run can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

Samples = dict[str, list[float]]


def alternate(sides: Mapping[str, Callable[[], float]], rounds: Iterable[object]) -> Samples:
    """Run every side once a round, and keep the seconds that each says it took.

    Each other round goes backwards, so that no side is always the one that comes after another.
    """
    samples: Samples = {name: [] for name in sides}
    order = list(sides)
    for _ in rounds:
        for name in order:
            samples[name].append(sides[name]())
        order.reverse()
    return samples


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Of the medians."""
    return median(first) / median(second)


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of what the first took more than the second in the same round."""
    return median(a - b for a, b in zip(first, second, strict=True))
