"""The loop: one thread that does nothing but step.

Each turn takes the rows of one group of jobs through the UNet and advances them by one step. Jobs join at the next
step and leave at once when done, cancelled or failed; an exception fails the jobs of that group only.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch

from runtime.conditioning.row import blocks
from runtime.engines.engine import Binding, Engine
from runtime.stage_errors import Unavailable
from runtime.stages.denoiser.job import Job
from runtime.stages.denoiser.round_robin import RoundRobin

log = logging.getLogger("lorikeet")


@dataclass(eq=False)
class Member:
    """A job in the loop: what it runs on, and whom it tells.

    `check` raises when the job is to stop. `stepped` hears of each step; `ended` is called once, with the error or
    None, and must return at once.
    """

    job: Job
    engine: Engine
    binding: Binding
    block: int
    check: Callable[[], None]
    stepped: Callable[[int, int], None]
    ended: Callable[[Member, BaseException | None], None]
    seconds: float = 0.0


GroupKey = tuple[str, int, tuple[object, ...]]


class StepLoop:
    """Runs members until they end."""

    def __init__(self, turn_steps: int) -> None:
        self._arrivals: queue.SimpleQueue[Member | None] = queue.SimpleQueue()
        self._members: list[Member] = []
        self._turns: RoundRobin[GroupKey] = RoundRobin(turn_steps)
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()

    def add(self, member: Member) -> None:
        """Let a job join at the next step."""
        self._arrivals.put(member)

    def close(self) -> None:
        """Stop after the present step; members that are left end as unavailable."""
        self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._admit():
            self._retire()
            if self._members:
                self._run_batch()
        for member in list(self._members):
            self._end(member, Unavailable("the server is stopping"))

    def _admit(self) -> bool:
        """Take in who has arrived, waiting when there is nothing to step. False: the loop is closed."""
        while not self._members or not self._arrivals.empty():
            member = self._arrivals.get()
            if member is None:
                return False
            self._members.append(member)
        return True

    def _retire(self) -> None:
        """Let go of members that are done, or are to stop."""
        for member in list(self._members):
            if member.job.done:
                self._end(member, None)
                continue
            try:
                member.check()
                _ = member.job.rows  # made here, where an exception is this job's alone
            except Exception as error:
                self._end(member, error)

    def _run_batch(self) -> None:
        groups: dict[GroupKey, list[Member]] = {}
        for member in self._members:
            key = (member.binding.key, member.block, member.job.rows[0].shapes)
            groups.setdefault(key, []).append(member)
        group = groups[self._turns.next(groups.keys())]
        begun = time.monotonic()
        try:
            predictions = self._predict(group)
        except Exception as error:
            log.exception("the UNet failed; %d jobs fail with it", len(group))
            for member in group:
                self._end(member, error)
            return
        for member, answer in zip(group, predictions, strict=True):
            self._advance(member, answer)
            member.seconds += time.monotonic() - begun

    def _predict(self, group: list[Member]) -> list[list[torch.Tensor]]:
        """The UNet's answers to each member's rows."""
        first = group[0]
        found: list[torch.Tensor] = []
        for inputs, count in blocks([row for member in group for row in member.job.rows], first.block):
            prediction = first.engine.run(first.binding, inputs)["prediction"]
            assert isinstance(prediction, torch.Tensor)
            found.extend(prediction[:count])
        answers = iter(found)
        return [list(islice(answers, len(member.job.rows))) for member in group]

    def _advance(self, member: Member, answer: list[torch.Tensor]) -> None:
        try:
            member.job.advance(answer)
            member.stepped(member.job.step, member.job.steps)
        except Exception as error:
            self._end(member, error)

    def _end(self, member: Member, error: BaseException | None) -> None:
        self._members.remove(member)
        member.binding.release()
        member.ended(member, error)
