"""Variants alternate, and figures are medians."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks.pairs import alternate, difference, ratio


def test_variants_alternate_and_every_sample_is_kept() -> None:
    calls: list[str] = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    samples = alternate({name: partial(side, name) for name in "abc"}, range(3))
    assert "".join(calls) == "abccbaabc"
    assert samples == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_one_slow_round_changes_neither_figure() -> None:
    ours, theirs = [2.0, 2.1, 90.0, 2.2, 1.9], [1.0, 1.0, 1.0, 70.0, 1.0]
    assert ratio(ours, theirs) == pytest.approx(2.1)
    assert difference(ours, theirs) == pytest.approx(1.0)
