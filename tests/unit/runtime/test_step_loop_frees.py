"""A step loop that waits keeps nothing of its last jobs, so that memory which is counted as free is free."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Hashable, Iterator
from typing import Any

import pytest

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.stage_errors import Cancelled
from runtime.stages.step_loop.member import Member
from runtime.stages.step_loop.step_loop import StepLoop
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine, FakeJob, Rider, ask
from tests.unit.runtime.freed import is_freed, no_collector


@pytest.fixture
def loop() -> Iterator[StepLoop]:
    found = StepLoop()
    yield found
    found.close()


class _OneCall:
    """A job of one step, or of none, which holds weights."""

    def __init__(self, bound: Bound, end: str) -> None:
        self.bound, self.end = bound, end
        self.steps, self.steps_done = int(end != "no steps"), 0

    @property
    def done(self) -> bool:
        return self.steps_done == self.steps

    def step(self) -> Generator[list[Ask], list[Outputs], None]:
        yield [ask(self.bound, 1)]
        if self.end == "step":
            raise ArithmeticError
        self.steps_done += 1

    def close(self) -> None:
        if self.end == "close":
            raise ArithmeticError


class _KeyOfWeights(FakeEngine):
    """An engine whose batch keys refer to the weights."""

    def batch_key(self, binding: Any, inputs: Inputs) -> Hashable:
        key: Hashable = binding
        return key


@pytest.mark.parametrize("end", ["done", "no steps", "call", "step", "cancelled", "close"])
def test_a_loop_that_waits_keeps_no_weights(loop: StepLoop, end: str) -> None:
    """Else the weights of the last job would be in memory beside those of the next one, above the budget."""
    engine = _KeyOfWeights(fail=lambda numbers: end == "call")
    ended = threading.Event()

    def check_cancelled() -> None:
        if end == "cancelled":
            raise Cancelled

    def add() -> weakref.ref[FakeBinding]:
        binding = FakeBinding()
        job = _OneCall(Bound(engine, binding, 1), end)
        loop.add(Member(job, check_cancelled, lambda *_: None, lambda *_: ended.set()))
        return weakref.ref(binding)

    with no_collector():
        weights = add()
        assert ended.wait(10)
        assert is_freed(weights)


def test_a_loop_that_waits_keeps_no_rows(loop: StepLoop) -> None:
    """The last call's rows hold a job's residuals."""
    binding = FakeBinding()
    bound = Bound(FakeEngine(), binding, 2)
    kept: list[weakref.ref[Ask]] = []

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        asks = [ask(bound, number) for number in range(3)]
        kept.extend(map(weakref.ref, asks))
        yield asks

    def run_to_end() -> None:
        one = Rider(FakeJob(1, script, [binding]))
        loop.add(one.member)
        assert one.end is None

    with no_collector():
        run_to_end()
        assert all(map(is_freed, kept)) and len(kept) == 3
