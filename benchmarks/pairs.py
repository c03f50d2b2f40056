"""Paired timing. On a shared, noisy machine only times that alternate within one run are comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

Samples = dict[str, list[float]]


def alternate(variants: Mapping[str, Callable[[], float]], rounds: Iterable[object]) -> Samples:
    """Call each variant once a round, and collect the seconds that it returns, by name.

    Every second round runs in reverse order, so that no variant always follows the same other one.
    """
    samples: Samples = {name: [] for name in variants}
    order = list(variants)
    for _ in rounds:
        for name in order:
            samples[name].append(variants[name]())
        order.reverse()
    return samples


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The ratio of the medians."""
    return median(first) / median(second)


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of the differences first - second of the same round."""
    return median(a - b for a, b in zip(first, second, strict=True))
