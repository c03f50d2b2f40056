"""What a stage has queued and what it runs, for its heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Running:
    """Work that runs, and since when (CLOCK_MONOTONIC seconds)."""

    what: str
    since: float


class Worker(Protocol):
    """A part of a stage that takes work from a queue."""

    @property
    def queued(self) -> int:
        """How much work waits."""

    @property
    def running(self) -> Sequence[Running]:
        """The work that runs."""

    def close(self) -> None:
        """End the worker's threads."""


@dataclass(frozen=True)
class Activity:
    """What all workers of a stage do: the amount of queued work, and the work that has run longest, if any."""

    queued: int = 0
    longest: Running | None = None

    @classmethod
    def of(cls, workers: Sequence[Worker]) -> Activity:
        running = [item for worker in workers for item in worker.running]
        return cls(sum(worker.queued for worker in workers), min(running, key=lambda item: item.since, default=None))


class RunningWork:
    """The work that the threads of one worker run. Any thread may use it."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """The calling thread runs `what` inside this context."""
        thread = threading.get_ident()
        self._running[thread] = Running(what, time.monotonic())
        try:
            yield
        finally:
            del self._running[thread]

    def all(self) -> list[Running]:
        return list(self._running.values())
