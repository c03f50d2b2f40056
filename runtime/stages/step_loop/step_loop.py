"""The step loop: one thread that makes one engine call at a time, for the asks of all jobs.

It does not depend on diffusion. After each call it admits the jobs that have arrived and ends those that are done or
cancelled. An exception ends the job that it belongs to, never the thread.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence

from runtime.jobs.activity import Running, RunningWork
from runtime.jobs.long_lived import start_thread
from runtime.stage_errors import Unavailable
from runtime.stages.step_loop.batching import Batching, OpenAsk, answer, open_asks
from runtime.stages.step_loop.member import Member

log = logging.getLogger("lorikeet")


class StepLoop:
    """Runs jobs until they end."""

    def __init__(
        self, calls_per_turn: int = 0, on_call: Callable[[int, float], None] = lambda rows, seconds: None
    ) -> None:
        """`calls_per_turn`: calls of one batch key before another key's turn; 0 means the engine's own number.

        `on_call(rows, seconds)` is called after each call that succeeded; it returns at once and never raises.
        """
        self._on_call = on_call
        self._arrivals: queue.SimpleQueue[Member | None] = queue.SimpleQueue()
        self._members: list[Member] = []
        self._batching = Batching(calls_per_turn)
        self._calls = 0
        self._running = RunningWork()
        self._thread = start_thread(self._run, "step-loop")

    @property
    def queued(self) -> int:
        """How many jobs are in the loop or wait for it."""
        return len(self._members) + self._arrivals.qsize()

    @property
    def running(self) -> list[Running]:
        """The engine call that runs."""
        return self._running.all()

    def add(self, member: Member) -> None:
        """Add a job. Its rows can join the next call."""
        self._arrivals.put(member)

    def close(self) -> None:
        """Return after the running call; the remaining jobs end with Unavailable."""
        self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._admit():
            self._retire_cancelled()
            if batch := self._batching.next([item for member in self._members for item in open_asks(member)]):
                self._run_batch(batch)
            del batch  # its rows are large, and the next ones may take hours to come
        for member in list(self._members):
            self._retire(member, Unavailable("the server is stopping"))

    def _admit(self) -> bool:
        """Take the jobs that have arrived, and wait for one when there is none; False when the loop is closed."""
        while not self._members or not self._arrivals.empty():
            member = self._arrivals.get()
            if member is None:
                return False
            member.last_call = self._calls - 1  # the job arrived before the last call ended
            self._members.append(member)
            self._advance(member)
        return True

    def _retire_cancelled(self) -> None:
        for member in list(self._members):
            try:
                member.check_cancelled()
            except BaseException as error:
                self._retire(member, error)

    def _run_batch(self, batch: Sequence[OpenAsk]) -> None:
        """One call, and the next asks of the jobs that it answers."""
        members = list(dict.fromkeys(item.member for item in batch))
        self._calls += 1
        begun = time.monotonic()
        try:
            with self._running.of("engine call"):
                answer(batch)
        except BaseException as error:
            if len(members) > 1:
                # The error may come from one job only. A call for each job alone gives the same bytes.
                for member in members:
                    self._run_batch([item for item in batch if item.member is member])
                return
            log.exception("a call of the engine failed")
            self._fail(members[0], error)
            return
        seconds = time.monotonic() - begun
        self._on_call(len(batch), seconds)
        for member in members:
            member.seconds += seconds
            member.last_call = self._calls
            if not member.waits:
                self._advance(member)

    def _advance(self, member: Member) -> None:
        try:
            if member.advance():
                self._retire(member, None)
        except BaseException as error:
            self._retire(member, error)

    def _fail(self, member: Member, error: BaseException) -> None:
        try:
            member.throw(error)
        except BaseException as thrown:
            self._retire(member, thrown)

    def _retire(self, member: Member, error: BaseException | None) -> None:
        """Remove a job from the loop, close it, and call its `on_end`."""
        self._members.remove(member)
        try:
            member.close()
        except BaseException:
            log.exception("a job could not be closed")
        try:
            member.on_end(member, error)
        except BaseException:
            log.exception("the end of a job could not be reported")
