"""LruBudget: items stay between requests within the budget, and an item in use is never evicted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.engine import WeightsError, never_cancelled
from runtime.engines.lru_budget import LruBudget


@dataclass
class Thing:
    nbytes: int
    evicted_names: list[str] = field(default_factory=list)
    name: str = ""
    is_evicted: bool = False

    def evicted(self) -> None:
        self.is_evicted = True
        self.evicted_names.append(self.name)


class Kept:
    """A budget whose items record that they are evicted."""

    def __init__(self, budget: int) -> None:
        self.evicted_names: list[str] = []
        self.made: list[str] = []
        self.lru_budget: LruBudget[Thing] = LruBudget(budget)

    def acquire(self, name: str, nbytes: int) -> Thing:
        def make() -> Thing:
            self.made.append(name)
            return Thing(nbytes, self.evicted_names, name)

        return self.lru_budget.acquire(name, make)

    def use(self, name: str, nbytes: int) -> None:
        self.acquire(name, nbytes)
        self.lru_budget.release(name)


def test_an_item_in_memory_is_not_made_again() -> None:
    kept = Kept(100)
    first = kept.acquire("a", 10)
    kept.lru_budget.release("a")
    assert kept.acquire("a", 10) is first
    assert kept.made == ["a"]


def test_the_least_recently_used_is_evicted_first() -> None:
    kept = Kept(30)
    for name in ("a", "b", "c", "a", "d", "e"):
        kept.use(name, 10)
    assert kept.evicted_names == ["b", "c"]


def test_an_item_in_use_is_never_evicted() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)
    kept.use("b", 10)
    assert kept.evicted_names == ["b"]
    kept.lru_budget.release("a")
    assert kept.evicted_names == ["b"]
    kept.use("c", 10)
    assert kept.evicted_names == ["b", "a"]


def test_two_users_must_both_release() -> None:
    kept = Kept(0)
    kept.acquire("a", 10)
    kept.acquire("a", 10)
    kept.lru_budget.release("a")
    assert kept.evicted_names == []
    kept.lru_budget.release("a")
    assert kept.evicted_names == ["a"]


def test_an_item_above_the_budget_lives_while_it_is_used() -> None:
    kept = Kept(5)
    kept.acquire("a", 10)
    assert (kept.lru_budget.nbytes, kept.evicted_names) == (10, [])
    kept.lru_budget.release("a")
    assert (kept.lru_budget.nbytes, kept.evicted_names) == (0, ["a"])


def test_an_eviction_may_release_another_item() -> None:
    """A merged set needs its base; its eviction unpins the base."""
    kept = Kept(0)
    kept.acquire("base", 10)
    kept.lru_budget.pin("base")
    kept.lru_budget.release("base")

    class Merged(Thing):
        def evicted(self) -> None:
            super().evicted()
            kept.lru_budget.unpin("base")

    kept.lru_budget.acquire("merged", lambda: Merged(1, kept.evicted_names, "merged"))
    kept.lru_budget.release("merged")
    assert kept.evicted_names == ["merged", "base"]


def test_a_request_does_not_wait_for_its_own_items() -> None:
    """Nothing would release them."""
    kept = Kept(30)
    kept.use("of an earlier request", 10)
    with kept.lru_budget.one_request():
        kept.lru_budget.make_room({"unet": 10}, _never_waits)
        kept.acquire("unet", 10)
        kept.lru_budget.make_room({"controlnet": 20}, _never_waits)
        kept.acquire("controlnet", 20)
        with pytest.raises(
            WeightsError, match=r"need 0\.0 MB at the same time; this server has .*LORIKEET_WEIGHTS_BYTES"
        ):
            kept.lru_budget.make_room({"another": 1}, _never_waits)
    assert kept.evicted_names == ["of an earlier request"]


def test_the_first_item_of_a_request_may_exceed_the_budget() -> None:
    kept = Kept(5)
    with kept.lru_budget.one_request():
        kept.lru_budget.make_room({"unet": 8, "low rank": 2}, _never_waits)
        kept.acquire("unet", 8)
        kept.acquire("low rank", 2)
    assert kept.lru_budget.nbytes == 10


@pytest.mark.parametrize("is_in_memory", [False, True])
def test_what_is_in_memory_decides_nothing(is_in_memory: bool) -> None:
    kept = Kept(30)
    if is_in_memory:
        kept.use("controlnet", 25)
    with kept.lru_budget.one_request():
        kept.lru_budget.make_room({"unet": 10}, _never_waits)
        kept.acquire("unet", 10)
        kept.lru_budget.make_room({"unet": 10}, _never_waits)  # once more: it needs no more memory
        with pytest.raises(WeightsError):
            kept.lru_budget.make_room({"controlnet": 25}, _never_waits)


def test_a_request_waits_for_the_items_of_others() -> None:
    kept = Kept(30)
    kept.acquire("of another request", 20)
    with kept.lru_budget.one_request():
        kept.acquire("unet", 10)
        threading.Timer(0.2, kept.lru_budget.release, ["of another request"]).start()
        kept.lru_budget.make_room({"controlnet": 20}, never_cancelled)
    assert kept.evicted_names == ["of another request"]


def test_an_item_that_another_one_pins_is_no_use_by_others() -> None:
    """A merged set that an earlier request made is in use again: its pin of the base is as old as itself."""
    kept = Kept(30)
    kept.acquire("base", 10)
    kept.lru_budget.pin("base")
    kept.use("merged", 5)
    kept.lru_budget.release("base")
    with kept.lru_budget.one_request():
        kept.lru_budget.make_room({"base": 10, "merged": 5}, _never_waits)
        kept.acquire("base", 10)
        kept.acquire("merged", 5)
        kept.lru_budget.make_room({"controlnet": 15}, _never_waits)
        with pytest.raises(WeightsError):
            kept.lru_budget.make_room({"another": 1}, _never_waits)


def test_items_of_a_request_are_those_of_others_for_the_next() -> None:
    kept = Kept(20)
    with kept.lru_budget.one_request():
        kept.acquire("unet", 10)
    with kept.lru_budget.one_request(), pytest.raises(TimeoutError):
        kept.lru_budget.make_room({"a": 5}, _never_waits)
        kept.acquire("a", 5)
        kept.lru_budget.make_room({"b": 10}, _never_waits)


def _never_waits() -> None:
    raise TimeoutError("it waits")


def test_a_failed_make_keeps_nothing() -> None:
    kept = Kept(10)

    def fail() -> Thing:
        raise MemoryError

    for _ in range(2):
        with pytest.raises(MemoryError):
            kept.lru_budget.acquire("a", fail)
    assert kept.lru_budget.nbytes == 0
    kept.use("a", 5)


def test_one_thread_may_release_while_another_makes() -> None:
    kept = Kept(0)
    kept.acquire("a", 10)
    making, made = threading.Event(), threading.Event()

    def slow() -> Thing:
        making.set()
        assert made.wait(5)
        return Thing(1)

    thread = threading.Thread(target=lambda: kept.lru_budget.acquire("b", slow))
    thread.start()
    assert making.wait(5)
    kept.lru_budget.release("a")
    assert kept.evicted_names == ["a"]
    made.set()
    thread.join()


@given(
    budget=st.integers(0, 50),
    uses=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40),
)
def test_only_items_in_use_exceed_the_budget(budget: int, uses: list[tuple[str, bool]]) -> None:
    kept = Kept(budget)
    sizes = {name: 5 * (index + 1) for index, name in enumerate("abcdef")}
    held: list[Thing] = []
    for name, release in uses:
        if release and held:
            kept.lru_budget.release(held.pop().name)
        else:
            held.append(kept.acquire(name, sizes[name]))
        in_use = sum(sizes[name] for name in {thing.name for thing in held})
        assert in_use <= kept.lru_budget.nbytes <= max(budget, in_use)
        assert not any(thing.is_evicted for thing in held)


def test_make_room_evicts_idle_items() -> None:
    kept = Kept(30)
    for name in ("a", "b", "c"):
        kept.use(name, 10)
    kept.lru_budget.make_room({"d": 15}, pytest.fail)
    assert kept.evicted_names == ["a", "b"]
    assert "c" in kept.lru_budget and "a" not in kept.lru_budget


def test_make_room_waits_until_an_item_in_use_is_released() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)
    asked, made = threading.Event(), threading.Event()

    def make_room() -> None:
        kept.lru_budget.make_room({"b": 5}, asked.set)
        made.set()

    thread = threading.Thread(target=make_room)
    thread.start()
    assert asked.wait(5)
    assert not made.wait(0.1)
    kept.lru_budget.release("a")
    assert made.wait(5)
    assert kept.evicted_names == ["a"]
    thread.join()


def test_make_room_can_be_cancelled() -> None:
    kept = Kept(10)
    kept.acquire("a", 10)

    def check_cancelled() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        kept.lru_budget.make_room({"b": 5}, check_cancelled)


def test_a_request_above_the_budget_waits_only_for_items_in_use() -> None:
    kept = Kept(10)
    kept.use("a", 10)
    kept.lru_budget.make_room({"b": 1000}, pytest.fail)
    assert kept.evicted_names == ["a"]


def test_make_room_keeps_what_is_needed() -> None:
    kept = Kept(20)
    for name in ("base", "other"):
        kept.use(name, 10)
    kept.lru_budget.make_room({"base": 10, "merged": 10}, pytest.fail)
    assert kept.evicted_names == ["other"]


def test_what_is_needed_stays_while_others_release_it() -> None:
    """A model above the budget, whose users have a LoRA each: the second waits, and finds the model in memory."""
    kept = Kept(80)
    kept.acquire("model", 100)
    kept.acquire("lora of another request", 1)

    def release() -> None:
        for name in ("lora of another request", "model"):
            kept.lru_budget.release(name)

    threading.Timer(0.2, release).start()
    kept.lru_budget.make_room({"model": 100, "lora": 1}, never_cancelled)
    assert "model" in kept.lru_budget
    kept.acquire("model", 100)
    assert kept.made.count("model") == 1


def test_nothing_waits_for_the_users_of_what_it_needs() -> None:
    kept = Kept(80)
    kept.acquire("model", 100)
    kept.lru_budget.make_room({"model": 100, "lora": 1}, _never_waits)


def test_an_item_may_lack_a_part_of_its_bytes() -> None:
    kept = Kept(20)
    for name in ("base", "other"):
        kept.use(name, 10)
    kept.lru_budget.make_room({"base": 15}, pytest.fail, missing=5)
    assert kept.evicted_names == ["other"]


def test_a_prefix_has_a_number_of_places() -> None:
    kept = Kept(100)
    for name in ("a1", "b1", "a2", "a3"):
        kept.acquire(name, 1)
    for name in ("a2", "a3", "b1"):
        kept.lru_budget.release(name)
    kept.lru_budget.make_place("a", 2, never_cancelled)
    assert kept.evicted_names == ["a2"]  # a1 is in use, and a3 was used later
    kept.lru_budget.make_place("a", 2, never_cancelled)
    assert kept.evicted_names == ["a2"]


def test_a_place_is_waited_for() -> None:
    kept = Kept(100)
    kept.acquire("a1", 1)
    timer = threading.Timer(0.2, kept.lru_budget.release, ["a1"])
    timer.start()
    kept.lru_budget.make_place("a", 0, never_cancelled)
    timer.join()
    assert kept.evicted_names == ["a1"]


def test_waiting_for_a_place_can_be_cancelled() -> None:
    def cancel() -> None:
        raise InterruptedError

    kept = Kept(100)
    kept.acquire("a1", 1)
    with pytest.raises(InterruptedError):
        kept.lru_budget.make_place("a", 0, cancel)
    assert not kept.evicted_names
