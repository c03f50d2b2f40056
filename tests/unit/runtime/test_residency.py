"""Residency: what is kept between requests, and what never goes while it is in use."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.residency import Residency


@dataclass
class Thing:
    nbytes: int
    lost: list[str] = field(default_factory=list)
    name: str = ""
    gone: bool = False

    def dropped(self) -> None:
        self.gone = True
        self.lost.append(self.name)


class Kept:
    """A residency whose items note that they went."""

    def __init__(self, budget: int) -> None:
        self.lost: list[str] = []
        self.made: list[str] = []
        self.residency: Residency[Thing] = Residency(budget)

    def acquire(self, name: str, nbytes: int) -> Thing:
        def make() -> Thing:
            self.made.append(name)
            return Thing(nbytes, self.lost, name)

        return self.residency.acquire(name, make)

    def use(self, name: str, nbytes: int) -> None:
        self.acquire(name, nbytes)
        self.residency.release(name)


def test_what_is_kept_is_not_made_again() -> None:
    kept = Kept(100)
    first = kept.acquire("a", 10)
    kept.residency.release("a")
    assert kept.acquire("a", 10) is first
    assert kept.made == ["a"]


def test_the_least_recently_used_goes_first() -> None:
    kept = Kept(30)
    for name in ("a", "b", "c", "a", "d", "e"):
        kept.use(name, 10)
    assert kept.lost == ["b", "c"]


def test_what_is_in_use_never_goes() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)
    kept.use("b", 10)
    assert kept.lost == ["b"]
    kept.residency.release("a")
    assert kept.lost == ["b"]
    kept.use("c", 10)
    assert kept.lost == ["b", "a"]


def test_two_users_must_both_let_go() -> None:
    kept = Kept(0)
    kept.acquire("a", 10)
    kept.acquire("a", 10)
    kept.residency.release("a")
    assert kept.lost == []
    kept.residency.release("a")
    assert kept.lost == ["a"]


def test_what_is_larger_than_the_budget_lives_while_it_is_used() -> None:
    kept = Kept(5)
    kept.acquire("a", 10)
    assert (kept.residency.nbytes, kept.lost) == (10, [])
    kept.residency.release("a")
    assert (kept.residency.nbytes, kept.lost) == (0, ["a"])


def test_what_goes_may_let_go_of_another() -> None:
    """A merged set holds its base; when it goes, the base may follow."""
    kept = Kept(0)
    kept.acquire("base", 10)

    class Merged(Thing):
        def dropped(self) -> None:
            super().dropped()
            kept.residency.release("base")

    kept.residency.acquire("merged", lambda: Merged(1, kept.lost, "merged"))
    kept.residency.release("merged")
    assert kept.lost == ["merged", "base"]


def test_a_failed_make_leaves_nothing() -> None:
    kept = Kept(10)

    def fail() -> Thing:
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError):
            kept.residency.acquire("a", fail)
    assert kept.residency.nbytes == 0
    kept.use("a", 5)


def test_one_thread_may_let_go_while_another_makes() -> None:
    kept = Kept(0)
    kept.acquire("a", 10)
    making, made = threading.Event(), threading.Event()

    def slow() -> Thing:
        making.set()
        assert made.wait(5)
        return Thing(1)

    thread = threading.Thread(target=lambda: kept.residency.acquire("b", slow))
    thread.start()
    assert making.wait(5)
    kept.residency.release("a")
    assert kept.lost == ["a"]
    made.set()
    thread.join()


@given(
    budget=st.integers(0, 50),
    uses=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40),
)
def test_nothing_beyond_the_budget_is_kept_besides_what_is_in_use(budget: int, uses: list[tuple[str, bool]]) -> None:
    kept = Kept(budget)
    sizes = {name: 5 * (index + 1) for index, name in enumerate("abcdef")}
    held: list[Thing] = []
    for name, release in uses:
        if release and held:
            kept.residency.release(held.pop().name)
        else:
            held.append(kept.acquire(name, sizes[name]))
        in_use = sum(sizes[name] for name in {thing.name for thing in held})
        assert in_use <= kept.residency.nbytes <= max(budget, in_use)
        assert not any(thing.gone for thing in held)


def test_room_is_made_of_what_is_idle() -> None:
    kept = Kept(30)
    for name in ("a", "b", "c"):
        kept.use(name, 10)
    kept.residency.make_room(15, pytest.fail)
    assert kept.lost == ["a", "b"]
    assert "c" in kept.residency and "a" not in kept.residency


def test_one_that_needs_room_waits_until_what_is_in_use_is_released() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)
    asked, made = threading.Event(), threading.Event()

    def make_room() -> None:
        kept.residency.make_room(5, asked.set)
        made.set()

    thread = threading.Thread(target=make_room)
    thread.start()
    assert asked.wait(5)
    assert not made.wait(0.1)
    kept.residency.release("a")
    assert made.wait(5)
    assert kept.lost == ["a"]
    thread.join()


def test_one_that_waits_for_room_may_be_stopped() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        kept.residency.make_room(5, stop)


def test_what_is_larger_than_the_budget_waits_only_for_others() -> None:
    kept = Kept(10)
    kept.use("a", 10)
    kept.residency.make_room(1000, pytest.fail)
    assert kept.lost == ["a"]


def test_what_the_newcomer_builds_upon_is_kept() -> None:
    kept = Kept(20)
    for name in ("base", "other"):
        kept.use(name, 10)
    kept.residency.make_room(10, pytest.fail, keep="base")
    assert kept.lost == ["other"]
