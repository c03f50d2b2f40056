"""The loop, around an engine and jobs that a test scripts: who steps, who leaves, and who fails with whom."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from runtime.conditioning.row import Row
from runtime.stage_errors import Cancelled, Unavailable
from runtime.stages.denoiser.step_loop import Member, StepLoop


@dataclass
class FakeBinding:
    key: str
    released: int = 0

    def release(self) -> None:
        self.released += 1


@dataclass
class FakeEngine:
    """Answers each row with its number plus 1000. `calls` are (key, numbers); `gate` lets one call through each."""

    calls: list[tuple[str, list[int]]] = field(default_factory=list)
    gate: threading.Semaphore | None = None
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    fail: Callable[[str], bool] = lambda key: False

    name, precision = "fake", "float32"

    def bind(self, weights: Any, stop: Any = None) -> Any:
        raise NotImplementedError

    def run(self, binding: Any, inputs: Any) -> dict[str, torch.Tensor]:
        numbers = inputs["latent"]
        self.calls.append((binding.key, [int(number) for number in numbers.flatten()]))
        self.began.release()
        if self.gate:
            assert self.gate.acquire(timeout=10)
        if self.fail(binding.key):
            raise RuntimeError("out of memory")
        return {"prediction": numbers + 1000}


class FakeJob:
    """A job of so many steps, asking with its number; it checks that the answer is its own."""

    def __init__(self, number: int, steps: int, rows: int = 1, width: int = 1) -> None:
        self.number, self.steps, self.step = number, steps, 0
        self._rows = [Row(torch.full((1, 1, 1), number), torch.tensor(0.0), torch.zeros(1, width))] * rows
        self.broken = ""

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def rows(self) -> list[Row]:
        if self.broken == "rows":
            raise ArithmeticError("rows")
        return self._rows

    def advance(self, predictions: Sequence[torch.Tensor]) -> None:
        if self.broken == "advance":
            raise ArithmeticError("advance")
        assert [int(answer) for answer in predictions] == [self.number + 1000] * len(self._rows)
        self.step += 1


class Passenger:
    """A member of the loop, and what it was told."""

    def __init__(self, engine: FakeEngine, number: int, steps: int, key: str = "a", **job: int) -> None:
        self.job, self.binding = FakeJob(number, steps, **job), FakeBinding(key)
        self.stop: BaseException | None = None
        self.told: list[tuple[int, int]] = []
        self.ends: list[BaseException | None] = []
        self._ended = threading.Event()
        job_: Any = self.job
        self.member = Member(job_, engine, self.binding, 2, self._check, lambda *at: self.told.append(at), self._end)

    def _check(self) -> None:
        if self.stop:
            raise self.stop

    def _end(self, member: Member, error: BaseException | None) -> None:
        assert member is self.member
        self.ends.append(error)
        self._ended.set()

    @property
    def end(self) -> BaseException | None:
        assert self._ended.wait(10), "it never ended"
        assert len(self.ends) == 1
        assert self.binding.released == 1
        return self.ends[0]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def slow() -> FakeEngine:
    """An engine that waits for `_step` at every call."""
    return FakeEngine(gate=threading.Semaphore(0))


@pytest.fixture
def loop(slow: FakeEngine) -> Iterator[StepLoop]:
    found = StepLoop(turn_steps=1)
    yield found
    if slow.gate:
        slow.gate.release(1000)
    found.close()


def _begun(engine: FakeEngine) -> None:
    """Wait until the next call has begun."""
    assert engine.began.acquire(timeout=10)


def _step(engine: FakeEngine) -> None:
    assert engine.gate
    engine.gate.release()


def test_a_job_runs_its_steps_and_ends(loop: StepLoop, engine: FakeEngine) -> None:
    one = Passenger(engine, 7, steps=3)
    loop.add(one.member)
    assert one.end is None
    assert one.told == [(1, 3), (2, 3), (3, 3)]
    assert engine.calls == [("a", [7, 7])] * 3  # a block of two is filled up


def test_a_job_without_steps_ends_at_once(loop: StepLoop, engine: FakeEngine) -> None:
    one = Passenger(engine, 7, steps=0)
    loop.add(one.member)
    assert one.end is None
    assert engine.calls == []


def test_one_that_arrives_joins_at_the_next_step(loop: StepLoop, slow: FakeEngine) -> None:
    one, two = Passenger(slow, 1, steps=3), Passenger(slow, 2, steps=1)
    loop.add(one.member)
    _begun(slow)
    loop.add(two.member)
    _step(slow)
    _begun(slow)
    assert slow.calls == [("a", [1, 1]), ("a", [1, 2])]
    _step(slow)
    assert two.end is None
    assert one.told == [(1, 3), (2, 3)]


def test_a_cancelled_job_leaves_before_the_next_step(loop: StepLoop, slow: FakeEngine) -> None:
    one, two = Passenger(slow, 1, steps=9), Passenger(slow, 2, steps=9)
    loop.add(one.member)
    _begun(slow)
    loop.add(two.member)
    one.stop = Cancelled()
    _step(slow)
    assert isinstance(one.end, Cancelled)
    _begun(slow)
    assert slow.calls[1] == ("a", [2, 2])


def test_rows_of_other_weights_or_shapes_are_called_apart(loop: StepLoop, slow: FakeEngine) -> None:
    members = [
        Passenger(slow, 1, 1),
        Passenger(slow, 2, 1, key="b"),
        Passenger(slow, 3, 1, width=2),
        Passenger(slow, 4, 1),
    ]
    gatherer = Passenger(slow, 0, 1)
    loop.add(gatherer.member)
    _begun(slow)
    for passenger in members:
        loop.add(passenger.member)
    assert slow.gate
    slow.gate.release(10)
    assert [passenger.end for passenger in members] == [None] * 4
    assert sorted(slow.calls[1:]) == [("a", [1, 4]), ("a", [3, 3]), ("b", [2, 2])]


def test_a_job_of_many_rows_gets_all_its_answers(loop: StepLoop, engine: FakeEngine) -> None:
    one, two = Passenger(engine, 1, steps=2, rows=5), Passenger(engine, 2, steps=4, rows=2)
    loop.add(one.member)
    loop.add(two.member)
    assert one.end is None and two.end is None


def test_groups_take_turns(loop: StepLoop, slow: FakeEngine) -> None:
    one, two = Passenger(slow, 1, steps=3), Passenger(slow, 2, steps=3, key="b")
    loop.add(one.member)
    _begun(slow)
    loop.add(two.member)
    assert slow.gate
    slow.gate.release(10)
    assert one.end is None and two.end is None
    assert [key for key, _ in slow.calls] == ["a", "b", "a", "b", "a", "b"]


def test_an_exception_in_the_engine_fails_its_group_alone(loop: StepLoop, slow: FakeEngine) -> None:
    slow.fail = lambda key: key == "b"
    fine, bad, worse = Passenger(slow, 1, 3), Passenger(slow, 2, 3, key="b"), Passenger(slow, 3, 3, key="b")
    loop.add(fine.member)
    _begun(slow)
    loop.add(bad.member)
    loop.add(worse.member)
    assert slow.gate
    slow.gate.release(10)
    assert [str(passenger.end) for passenger in (bad, worse)] == ["out of memory"] * 2
    assert fine.end is None


@pytest.mark.parametrize("where", ["advance", "rows"])
def test_an_exception_in_a_job_fails_that_job_alone(loop: StepLoop, slow: FakeEngine, where: str) -> None:
    fine, bad = Passenger(slow, 1, 3), Passenger(slow, 2, 3)
    bad.job.broken = where
    loop.add(fine.member)
    _begun(slow)
    loop.add(bad.member)
    assert slow.gate
    slow.gate.release(10)
    assert str(bad.end) == where
    assert fine.end is None


def test_an_exception_in_a_report_fails_that_job_alone(loop: StepLoop, engine: FakeEngine) -> None:
    def fail(*_: int) -> None:
        raise OSError("the job table is gone")

    bad, fine = Passenger(engine, 1, 3), Passenger(engine, 2, 3)
    bad.member.stepped = fail
    loop.add(bad.member)
    loop.add(fine.member)
    assert str(bad.end) == "the job table is gone"
    assert fine.end is None


def test_close_ends_who_is_left(slow: FakeEngine) -> None:
    loop = StepLoop(turn_steps=1)
    members = [Passenger(slow, 1, 9), Passenger(slow, 2, 9, key="b"), Passenger(slow, 3, 9)]
    loop.add(members[0].member)
    _begun(slow)
    for passenger in members[1:]:
        loop.add(passenger.member)
    assert slow.gate
    slow.gate.release(100)
    loop.close()
    assert all(isinstance(passenger.end, Unavailable) for passenger in members if passenger.ends != [None])
    assert len(slow.calls) < 27


def test_an_empty_loop_closes() -> None:
    StepLoop(turn_steps=1).close()
