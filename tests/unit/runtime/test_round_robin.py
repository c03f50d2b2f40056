"""RoundRobin: keys that cannot share a call take turns, and none waits for long."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import groupby
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.stages.step_loop.round_robin import RoundRobin

Key = TypeVar("Key", bound=Hashable)


def _present(keys: Iterable[Key], calls_per_turn: int) -> dict[Key, int]:
    """These keys, all with turns of so many calls."""
    return dict.fromkeys(keys, calls_per_turn)


@pytest.mark.parametrize("calls_per_turn", [1, 2, 5])
def test_a_key_alone_always_runs(calls_per_turn: int) -> None:
    turns: RoundRobin[str] = RoundRobin()
    assert [turns.next(_present("a", calls_per_turn)) for _ in range(20)] == ["a"] * 20


@pytest.mark.parametrize("calls_per_turn", [1, 2, 5])
def test_keys_take_turns_of_so_many_calls(calls_per_turn: int) -> None:
    turns: RoundRobin[str] = RoundRobin()
    served = [turns.next(_present("abc", calls_per_turn)) for _ in range(6 * calls_per_turn)]
    assert served == [name for name in "abcabc" for _ in range(calls_per_turn)]


def test_each_key_has_turns_of_its_own_length() -> None:
    """An engine whose weights are slow to change wants more calls of one key than another engine."""
    turns: RoundRobin[str] = RoundRobin()
    assert "".join(turns.next({"a": 1, "b": 3}) for _ in range(9)) == "abbbabbba"


def test_a_key_that_leaves_gives_its_turn_away() -> None:
    turns: RoundRobin[str] = RoundRobin()
    assert turns.next(_present("ab", 5)) == "a"
    assert turns.next(_present("b", 5)) == "b"


def test_a_key_that_arrives_waits_behind_those_that_are_present() -> None:
    turns: RoundRobin[str] = RoundRobin()
    served = [turns.next(_present(keys, 2)) for keys in ("ab", "abc", "abc", "abc", "abc", "abc", "abc")]
    assert "".join(served) == "aabbcca"


@pytest.mark.parametrize("calls_per_turn", [1, 3])
def test_a_stream_of_new_keys_blocks_no_other_one(calls_per_turn: int) -> None:
    """Each request with a LoRA of its own has a key of its own."""
    turns: RoundRobin[int] = RoundRobin()
    served = [turns.next(_present([0, number, number + 1], calls_per_turn)) for number in range(1, 100)]
    assert served.count(0) >= 30


KEYS = "abcde"
_PRESENT = st.lists(st.sets(st.sampled_from(KEYS), min_size=1).map(sorted), min_size=1, max_size=60)


@given(calls_per_turn=st.integers(1, 4), present=_PRESENT)
def test_only_a_present_key_is_served(calls_per_turn: int, present: list[list[str]]) -> None:
    turns: RoundRobin[str] = RoundRobin()
    assert all(turns.next(_present(keys, calls_per_turn)) in keys for keys in present)


@given(calls_per_turn=st.integers(1, 4), present=_PRESENT)
def test_a_waiting_key_is_served_within_a_turn_of_each_other_key(calls_per_turn: int, present: list[list[str]]) -> None:
    """A key that is present all along, while the others come and go."""
    turns: RoundRobin[str] = RoundRobin()
    served = [turns.next(_present([*keys, "always"], calls_per_turn)) for keys in present]
    for is_served, run in groupby(served, key=lambda found: found == "always"):
        assert is_served or len(list(run)) <= calls_per_turn * len(KEYS)
