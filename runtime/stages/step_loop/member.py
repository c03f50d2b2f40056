"""A job in the step loop, and its asks that have no answer yet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from runtime.engines.ask import Ask
from runtime.engines.engine import Outputs


class SteppingJob(Protocol):
    """The interface of a job for the loop."""

    @property
    def done(self) -> bool: ...

    @property
    def steps_done(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def step(self) -> Generator[list[Ask], list[Outputs], None]:
        """One step: yields lists of asks, and takes the outputs of each list, in its order."""

    def close(self) -> None:
        """Release what the job holds. Called once."""


@dataclass(eq=False)
class Member:
    """A job in the loop.

    `check_cancelled` raises when the job must end. `on_step(steps_done, steps)` is called after each step, and
    `on_end(member, error or None)` once; both return at once. `seconds`: the time of all calls with rows of this job.
    """

    job: SteppingJob
    check_cancelled: Callable[[], None]
    on_step: Callable[[int, int], None]
    on_end: Callable[[Member, BaseException | None], None]
    seconds: float = 0.0
    last_call: int = 0  # number of the last call with a row of this job; the smallest one has waited longest
    _step: Generator[list[Ask], list[Outputs], None] | None = field(default=None, init=False)
    _asks: Sequence[Ask] = field(default=(), init=False)
    _outputs: list[Outputs | None] = field(default_factory=list, init=False)
    _open: dict[Hashable, dict[int, Ask]] = field(default_factory=dict, init=False)  # by batch key, then by place

    @property
    def waits(self) -> bool:
        """Whether an ask has no answer yet."""
        return bool(self._open)

    def next_asks(self) -> Iterator[tuple[int, Ask]]:
        """The asks that the next call can answer, each with its place in the list that the job yielded.

        At most a block for each batch key: a list may have thousands of asks, and this is called before each call.
        """
        for group in self._open.values():
            block_rows = next(iter(group.values())).bound.block_rows
            yield from islice(group.items(), block_rows)

    def answer(self, place: int, outputs: Outputs) -> None:
        """Keep the answer to an ask until all of its list are answered."""
        key = self._asks[place].batch_key
        del self._open[key][place]
        if not self._open[key]:
            del self._open[key]
        self._outputs[place] = outputs

    def advance(self) -> bool:
        """Run the job to its next asks or to its end. Returns whether it has ended. Call it when no ask is open.

        Raises the errors of the job, and the engine's error for an ask that has no batch key.
        """
        while not self._open:
            if self._step is None and self.job.done:
                return True
            answers = [output for output in self._outputs if output is not None]
            self._asks, self._outputs = (), []
            try:
                if self._step is None:
                    self._step = self.job.step()
                    self._asks = next(self._step)
                else:
                    self._asks = self._step.send(answers)
                self._outputs = [None] * len(self._asks)
                for place, ask in enumerate(self._asks):
                    self._open.setdefault(ask.batch_key, {})[place] = ask
            except StopIteration:
                self._step = None
                self.on_step(self.job.steps_done, self.job.steps)
        return False

    def throw(self, error: BaseException) -> None:
        """Throw the error of a failed call into the job's step. Raises it, or the error that the job raises instead."""
        try:
            if self._step is not None:
                self._step.throw(error)
            raise error  # a step that catches the error must not continue: some of its asks have no answer
        finally:
            del error  # its traceback has this frame: they would keep each other, and the job

    def close(self) -> None:
        """Stop the job's step at its current ask, and release what the job holds."""
        try:
            if self._step is not None:
                self._step.close()
        finally:
            self.job.close()
