"""RoundRobin: groups that cannot share a call take turns, and none waits for long."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.stages.denoiser.round_robin import RoundRobin


@pytest.mark.parametrize("quantum", [1, 2, 5])
def test_a_group_alone_always_steps(quantum: int) -> None:
    turns: RoundRobin[str] = RoundRobin(quantum)
    assert [turns.next(["a"]) for _ in range(20)] == ["a"] * 20


@pytest.mark.parametrize("quantum", [1, 2, 5])
def test_groups_take_turns_of_a_quantum(quantum: int) -> None:
    turns: RoundRobin[str] = RoundRobin(quantum)
    served = [turns.next([*"abc"]) for _ in range(6 * quantum)]
    assert served == [name for name in "abcabc" for _ in range(quantum)]


def test_one_that_leaves_gives_its_turn_away() -> None:
    turns: RoundRobin[str] = RoundRobin(5)
    assert turns.next(["a", "b"]) == "a"
    assert turns.next(["b"]) == "b"


def test_one_that_comes_waits_for_those_that_are_there() -> None:
    turns: RoundRobin[str] = RoundRobin(2)
    served = [turns.next([*present]) for present in ("ab", "abc", "abc", "abc", "abc", "abc", "abc")]
    assert "".join(served) == "aabbcca"


@pytest.mark.parametrize("quantum", [1, 3])
def test_a_stream_of_newcomers_keeps_nobody_waiting(quantum: int) -> None:
    """Each request with a LoRA of its own is a group of its own."""
    turns: RoundRobin[int] = RoundRobin(quantum)
    served = [turns.next([0, number, number + 1]) for number in range(1, 100)]
    assert served.count(0) >= 30


GROUPS = "abcde"
_PRESENT = st.lists(st.sets(st.sampled_from(GROUPS), min_size=1).map(sorted), min_size=1, max_size=60)


@given(quantum=st.integers(1, 4), present=_PRESENT)
def test_only_who_is_there_is_served(quantum: int, present: list[list[str]]) -> None:
    turns: RoundRobin[str] = RoundRobin(quantum)
    assert all(turns.next(names) in names for names in present)


@given(quantum=st.integers(1, 4), present=_PRESENT)
def test_a_waiting_group_is_served_within_a_quantum_of_each_other_group(quantum: int, present: list[list[str]]) -> None:
    """Whoever is there all along, while the others come and go as they like."""
    turns: RoundRobin[str] = RoundRobin(quantum)
    served = [turns.next([*names, "always"]) for names in present]
    for name, run in groupby(served, key=lambda found: found == "always"):
        assert name or len(list(run)) <= quantum * len(GROUPS)
