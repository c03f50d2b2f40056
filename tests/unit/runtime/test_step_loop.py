"""The step loop, around an engine and jobs that a test scripts: which rows share a call, and what a failure ends."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest
import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.stage_errors import Cancelled, Unavailable
from runtime.stages.step_loop.step_loop import StepLoop
from tests.unit.runtime.fake_engine import FakeBinding, FakeEngine, FakeJob, Rider, ask, rider


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def slow() -> FakeEngine:
    """An engine each of whose calls waits for `let_go`."""
    return FakeEngine(gate=threading.Semaphore(0))


@pytest.fixture
def loop(slow: FakeEngine) -> Iterator[StepLoop]:
    found = StepLoop()
    yield found
    slow.let_go(1000)
    found.close()


def _hold(loop: StepLoop, slow: FakeEngine) -> Rider:
    """A job whose call runs until `let_go`, so that what is added meanwhile arrives together."""
    holder = rider(slow, 0, key="holder")
    loop.add(holder.member)
    slow.wait_for_call()
    return holder


def test_a_job_runs_its_steps_and_ends(loop: StepLoop, engine: FakeEngine) -> None:
    one = rider(engine, 7, steps=3)
    loop.add(one.member)
    assert one.end is None
    assert one.told == [(1, 3), (2, 3), (3, 3)]
    assert engine.calls == [[7, 7]] * 3  # a block of two is filled up


def test_each_call_is_reported_with_its_rows_without_padding(engine: FakeEngine) -> None:
    calls: list[int] = []

    def on_call(rows: int, seconds: float) -> None:
        calls.append(rows)
        assert 0 <= seconds < 10

    loop, one = StepLoop(on_call=on_call), rider(engine, 7, steps=2, rows=3)
    loop.add(one.member)
    assert one.end is None
    loop.close()
    assert calls == [2, 1, 2, 1]
    assert engine.calls == [[7, 7]] * 4


def test_a_job_without_steps_ends_at_once(loop: StepLoop, engine: FakeEngine) -> None:
    one = rider(engine, 7, steps=0)
    loop.add(one.member)
    assert one.end is None
    assert engine.calls == []


def test_a_job_that_arrives_joins_at_the_next_call(loop: StepLoop, slow: FakeEngine) -> None:
    one, two = rider(slow, 1, steps=3), rider(slow, 2)
    loop.add(one.member)
    slow.wait_for_call()
    loop.add(two.member)
    slow.let_go()
    slow.wait_for_call()
    assert slow.calls[0] == [1, 1]
    assert sorted(slow.calls[1]) == [1, 2]
    slow.let_go(9)
    assert two.end is None and one.end is None


def test_a_step_asks_two_networks(loop: StepLoop, engine: FakeEngine) -> None:
    """A ControlNet's answer goes into the UNet's rows of the same step."""
    bindings = [FakeBinding("controlnet"), FakeBinding("unet")]
    controlnet, unet = (Bound(engine, binding, 1) for binding in bindings)
    seen = []

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        (residual,) = yield [ask(controlnet, 1)]
        (prediction,) = yield [ask(unet, int(residual["prediction"]))]  # type: ignore[arg-type]
        seen.append(int(prediction["prediction"]))  # type: ignore[arg-type]

    one = Rider(FakeJob(2, script, bindings))
    loop.add(one.member)
    assert one.end is None
    assert engine.calls == [[1], [1001]] * 2
    assert seen == [2001, 2001]


def test_asks_of_one_list_may_go_to_different_networks(loop: StepLoop, engine: FakeEngine) -> None:
    bindings = [FakeBinding("first"), FakeBinding("second")]
    bounds = [Bound(engine, binding, 2) for binding in bindings]
    answers: list[int] = []

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        found = yield [ask(bounds[number % 2], number) for number in range(4)]
        answers.extend(int(output["prediction"]) for output in found)  # type: ignore[arg-type]

    one = Rider(FakeJob(1, script, bindings))
    loop.add(one.member)
    assert one.end is None
    assert answers == [1000, 1001, 1002, 1003]
    assert sorted(engine.calls) == [[0, 2], [1, 3]]


def test_a_list_without_asks_is_answered_at_once(loop: StepLoop, engine: FakeEngine) -> None:
    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        answers = yield []
        assert answers == []

    one = Rider(FakeJob(3, script))
    loop.add(one.member)
    assert one.end is None
    assert engine.calls == []


def test_the_controlnet_asks_of_two_jobs_share_a_call(loop: StepLoop, slow: FakeEngine) -> None:
    """Their UNet weights differ; the ControlNet is the same."""

    def job(number: int) -> Rider:
        bindings = [FakeBinding("controlnet"), FakeBinding(f"unet {number}")]
        controlnet, unet = (Bound(slow, binding, 2) for binding in bindings)

        def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
            yield [ask(controlnet, number)]
            yield [ask(unet, number + 10)]

        return Rider(FakeJob(1, script, bindings))

    holder, one, two = _hold(loop, slow), job(1), job(2)
    loop.add(one.member)
    loop.add(two.member)
    slow.let_go(9)
    assert [found.end for found in (holder, one, two)] == [None] * 3
    assert slow.calls[1:] == [[1, 2], [11, 11], [12, 12]]


def test_rows_of_other_weights_shapes_or_blocks_are_called_apart(loop: StepLoop, slow: FakeEngine) -> None:
    holder = _hold(loop, slow)
    riders = [
        rider(slow, 1),
        rider(slow, 2, key="b"),
        rider(slow, 3, text=torch.zeros(2)),
        rider(slow, 4),
        rider(slow, 5, block=1),
    ]
    for found in riders:
        loop.add(found.member)
    slow.let_go(9)
    assert [found.end for found in (holder, *riders)] == [None] * 6
    assert sorted(slow.calls[1:]) == [[1, 4], [2, 2], [3, 3], [5]]


def test_rows_with_and_without_a_field_in_one_call_raise(loop: StepLoop, slow: FakeEngine) -> None:
    """Nothing is dropped without a word: an engine that groups such rows fails the call, and each job runs alone."""
    slow.groups_all = True
    holder = _hold(loop, slow)
    plain, guided = rider(slow, 1), rider(slow, 2, residuals=torch.zeros(3))
    both = FakeBinding("a")

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        bound = Bound(slow, both, 2)
        yield [ask(bound, 3), ask(bound, 4, residuals=torch.zeros(3))]

    mixed = Rider(FakeJob(1, script, [both]))
    for found in (plain, guided, mixed):
        loop.add(found.member)
    slow.let_go(9)
    assert [found.end for found in (holder, plain, guided)] == [None] * 3
    assert "residuals: some rows of the batch have it and others do not" in str(mixed.end)
    assert isinstance(mixed.job.thrown[0], ValueError)


def test_a_job_of_many_rows_keeps_no_other_job_of_its_key_waiting(loop: StepLoop, slow: FakeEngine) -> None:
    """25 asks a step beside 2 of the same key: the second call answers the second job."""
    holder = _hold(loop, slow)
    many, few = rider(slow, 1, steps=2, rows=25), rider(slow, 2, rows=2)
    loop.add(many.member)
    loop.add(few.member)
    slow.let_go(3)
    assert few.end is None
    assert slow.calls[1:3] == [[1, 1], [2, 2]]
    slow.let_go(99)
    assert many.end is None and holder.end is None
    assert len(slow.calls) == 1 + 1 + 2 * 13


def test_a_job_that_arrives_beside_one_of_many_rows_is_next(loop: StepLoop, slow: FakeEngine) -> None:
    many, few = rider(slow, 1, rows=25), rider(slow, 2, rows=2)
    loop.add(many.member)
    slow.wait_for_call()
    loop.add(few.member)
    slow.let_go(2)
    assert few.end is None
    assert slow.calls[:2] == [[1, 1], [2, 2]]


def test_a_cancel_ends_a_job_of_many_rows_after_the_running_call(loop: StepLoop, slow: FakeEngine) -> None:
    many = rider(slow, 1, steps=9, rows=25)
    loop.add(many.member)
    slow.wait_for_call()
    many.stop = Cancelled()
    slow.let_go()
    assert isinstance(many.end, Cancelled)
    assert many.job.left_early == 1
    assert slow.calls == [[1, 1]]


def test_keys_take_turns(loop: StepLoop, slow: FakeEngine) -> None:
    holder = _hold(loop, slow)
    one, two = rider(slow, 1, steps=3), rider(slow, 2, steps=3, key="b")
    loop.add(one.member)
    loop.add(two.member)
    slow.let_go(10)
    assert [found.end for found in (holder, one, two)] == [None] * 3
    assert [numbers[0] for numbers in slow.calls[1:]] == [1, 2, 1, 2, 1, 2]


def test_an_engine_may_want_longer_turns(loop: StepLoop, slow: FakeEngine) -> None:
    slow.calls_per_turn = 3
    holder = _hold(loop, slow)
    one, two = rider(slow, 1, steps=4), rider(slow, 2, steps=4, key="b")
    loop.add(one.member)
    loop.add(two.member)
    slow.let_go(10)
    assert [found.end for found in (holder, one, two)] == [None] * 3
    assert [numbers[0] for numbers in slow.calls[1:]] == [1, 1, 1, 2, 2, 2, 1, 2]


def test_a_failed_call_ends_only_the_job_that_is_to_blame(loop: StepLoop, slow: FakeEngine) -> None:
    """The call of two jobs is repeated for each alone."""
    slow.fail = lambda numbers: 2 in numbers
    holder = _hold(loop, slow)
    fine, bad, other = rider(slow, 1, steps=2), rider(slow, 2), rider(slow, 3, key="b", steps=2)
    for found in (fine, bad, other):
        loop.add(found.member)
    slow.let_go(20)
    assert str(bad.end) == "out of memory"
    assert [str(error) for error in bad.job.thrown] == ["out of memory"]
    assert [found.end for found in (holder, fine, other)] == [None] * 3


@pytest.mark.parametrize("where", ["first", "later", "step", "key", "report", "end", "close", "answers"])
def test_an_exception_anywhere_ends_that_job_alone(loop: StepLoop, engine: FakeEngine, where: str) -> None:
    binding = FakeBinding("a")
    bound = Bound(engine, binding, 2)

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        if where == "first":
            raise ArithmeticError(where)
        if where == "key":
            yield [Ask(bound, {"latent": object()})]  # type: ignore[dict-item]
        yield [ask(bound, 1)]
        if where == "later":
            raise ArithmeticError(where)
        if where == "answers":
            yield [None]  # type: ignore[list-item]

    def fail(*_: object) -> None:
        raise OSError(where)

    bad, fine = Rider(FakeJob(2, script, [binding])), rider(engine, 2, steps=3)
    if where == "step":
        bad.job.step = fail  # type: ignore[method-assign,assignment]
    if where == "report":
        bad.member.on_step = fail
    if where == "end":
        bad.member.on_end = fail
    if where == "close":
        bad.job.close = fail  # type: ignore[method-assign]
    loop.add(bad.member)
    loop.add(fine.member)
    assert fine.end is None
    after = rider(engine, 3)
    loop.add(after.member)
    assert after.end is None, "the thread is gone"
    if where not in ("end", "close"):
        assert bad.end is not None


def test_an_engine_that_answers_too_few_rows_fails_the_job(loop: StepLoop, engine: FakeEngine) -> None:
    engine.run = lambda rows: []  # type: ignore[method-assign]
    one = rider(engine, 1)
    loop.add(one.member)
    assert "answered 0 of 2 rows" in str(one.end)


def test_a_step_that_goes_on_after_a_failed_call_ends_all_the_same(loop: StepLoop, engine: FakeEngine) -> None:
    engine.fail = lambda numbers: True
    binding = FakeBinding("a")

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        try:
            yield [ask(Bound(engine, binding, 1), 1)]
        except RuntimeError:
            yield []

    one = Rider(FakeJob(1, script, [binding]))
    loop.add(one.member)
    assert str(one.end) == "out of memory"


def test_close_ends_the_jobs_that_are_left(slow: FakeEngine) -> None:
    loop = StepLoop()
    riders = [rider(slow, 1, steps=9), rider(slow, 2, steps=9, key="b"), rider(slow, 3, steps=9)]
    loop.add(riders[0].member)
    slow.wait_for_call()
    for found in riders[1:]:
        loop.add(found.member)
    slow.let_go(100)
    loop.close()
    assert all(isinstance(found.end, Unavailable) for found in riders if found.ends != [None])
    assert len(slow.calls) < 27


def test_an_empty_loop_closes() -> None:
    StepLoop().close()
