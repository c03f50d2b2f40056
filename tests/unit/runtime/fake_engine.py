"""An engine and jobs that a test scripts, for the step loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Inputs, Outputs
from runtime.engines.stacking import shapes, stack
from runtime.stages.step_loop.member import Member


@dataclass(eq=False)
class FakeBinding:
    key: str = "a"
    released: int = 0
    has_fixed_sizes: bool = False
    precision: str = "float32"

    def release(self) -> None:
        self.released += 1


@dataclass(eq=False)
class FakeEngine:
    """Answers each row with its number plus 1000.

    `calls` holds the numbers of each call's rows. With a `gate`, each call waits until the test lets it go on.
    `fail` says which call fails, given its numbers. With `groups_all`, rows of any shapes share a key.
    """

    calls: list[list[int]] = field(default_factory=list)
    gate: threading.Semaphore | None = None
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    fail: Callable[[list[int]], bool] = lambda numbers: False
    groups_all: bool = False
    calls_per_turn: int = 1

    name, device = "fake", torch.device("cpu")

    def bind(self, weights: Any, check_cancelled: Any, sizes: Any = None) -> Any:
        raise AssertionError("the step loop binds nothing")

    def batch_key(self, binding: Any, inputs: Inputs) -> Hashable:
        return binding.key if self.groups_all else (binding.key, shapes(inputs))

    def run(self, rows: Sequence[tuple[Any, Inputs]]) -> list[Outputs]:
        batch = stack([inputs for _, inputs in rows])
        numbers = batch["latent"]
        assert isinstance(numbers, torch.Tensor)
        self.calls.append([int(number) for number in numbers.flatten()])
        self.began.release()
        if self.gate:
            assert self.gate.acquire(timeout=10)
        if self.fail(self.calls[-1]):
            raise RuntimeError("out of memory")
        return [{"prediction": number + 1000} for number in numbers]

    def wait_for_call(self) -> None:
        """Return when the next call has begun."""
        assert self.began.acquire(timeout=10), "no call began"

    def let_go(self, calls: int = 1) -> None:
        """Let calls end."""
        assert self.gate
        self.gate.release(calls)


def ask(bound: Bound, number: int, **fields: torch.Tensor) -> Ask:
    """An ask of a number."""
    return Ask(bound, {"latent": torch.full((1,), float(number)), **fields})


Script = Callable[["FakeJob"], Generator[list[Ask], list[Outputs], None]]


@dataclass(eq=False)
class FakeJob:
    """A job whose steps a `script` plays; it checks nothing itself."""

    steps: int
    script: Script
    bindings: list[FakeBinding] = field(default_factory=list)
    steps_done: int = 0
    closed: int = 0
    thrown: list[BaseException] = field(default_factory=list)
    left_early: int = 0  # steps that ended by a close

    @property
    def done(self) -> bool:
        return self.steps_done >= self.steps

    def step(self) -> Generator[list[Ask], list[Outputs], None]:
        try:
            yield from self.script(self)
        except GeneratorExit:
            self.left_early += 1
            raise
        except BaseException as error:
            self.thrown.append(error)
            raise
        self.steps_done += 1

    def close(self) -> None:
        self.closed += 1
        for binding in self.bindings:
            binding.release()


class Rider:
    """A member of the loop, and what it was told."""

    def __init__(self, job: FakeJob) -> None:
        self.job = job
        self.stop: BaseException | None = None
        self.told: list[tuple[int, int]] = []
        self.ends: list[BaseException | None] = []
        self._ended = threading.Event()
        self.member = Member(job, self._check, lambda *at: self.told.append(at), self._end)

    def _check(self) -> None:
        if self.stop:
            raise self.stop

    def _end(self, member: Member, error: BaseException | None) -> None:
        assert member is self.member
        self.ends.append(error)
        self._ended.set()

    @property
    def end(self) -> BaseException | None:
        """The error that it ended with, or None; waits for its end."""
        assert self._ended.wait(10), "it never ended"
        assert len(self.ends) == 1
        assert self.job.closed == 1
        assert all(binding.released == 1 for binding in self.job.bindings)
        return self.ends[0]


def rider(
    engine: FakeEngine, number: int, *, steps: int = 1, rows: int = 1, key: str = "a", block: int = 2, **fields: Any
) -> Rider:
    """A job that asks for its number, `rows` times a step, and checks the answers."""
    binding = FakeBinding(key)
    bound = Bound(engine, binding, block)

    def script(_: FakeJob) -> Generator[list[Ask], list[Outputs], None]:
        answers = yield [ask(bound, number, **fields)] * rows
        assert [int(answer["prediction"]) for answer in answers] == [number + 1000] * rows  # type: ignore[arg-type]

    return Rider(FakeJob(steps, script, [binding]))
