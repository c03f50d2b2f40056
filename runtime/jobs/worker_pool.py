"""Threads that work on a line of tasks: priority first, then who came first; who is to stop leaves the line at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_SWEEP_SECONDS = 0.1  # how often the line is asked who is to stop


@dataclass(order=True)
class Task:
    """`work` is done once its turn has come. Until then `check` is asked often; what it raises goes to `fail`, as does
    what `work` raises. A lower `priority` goes first."""

    priority: int
    number: int = field(init=False, default=0)
    work: Callable[[], None] = field(compare=False)
    check: Callable[[], None] = field(compare=False)
    fail: Callable[[BaseException], None] = field(compare=False)


class WorkerPool:
    """`count` threads, started when first needed. `begin` runs first in each of them.

    With `room`, a thread takes a place in it before it takes a task, so that the choice of the task is as late as can
    be; the task's work gives the place back.
    """

    def __init__(
        self,
        count: int,
        name: str,
        room: threading.Semaphore | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._count, self._name, self._room, self._begin = count, name, room, begin
        self._line: list[Task] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, task: Task) -> None:
        """Put a task into the line. Raises RuntimeError after `close`."""
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._name} takes no more tasks")
            task.number = next(self._numbers)
            self._line.append(task)
            if not self._threads:
                self._start(self._sweep, "sweeper")
            if len(self._line) > self._idle and len(self._threads) <= self._count:
                self._start(self._work, str(len(self._threads)))
            self._changed.notify_all()

    def close(self) -> None:
        """Return when the line is empty and every thread has ended; whoever waits should be told to stop before."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=f"{self._name}-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        self._begin()
        while True:
            if self._room is not None:
                self._room.acquire()
            task = self._next()
            if task is None:
                break
            try:
                task.work()
            except BaseException as error:
                task.fail(error)
        if self._room is not None:
            self._room.release()

    def _next(self) -> Task | None:
        """The task whose turn it is, as soon as there is one; None when there will be none."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._line or self._closed)
            self._idle -= 1
            if not self._line:
                return None
            first = min(self._line)
            self._line.remove(first)
            return first

    def _sweep(self) -> None:
        """Tell those in the line that are to stop, though every thread may be busy for long."""
        while not self._closed or self._line:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                waiting = list(self._line)
            for task in waiting:
                self._retire(task)
            time.sleep(_SWEEP_SECONDS)

    def _retire(self, task: Task) -> None:
        try:
            task.check()
        except BaseException as error:
            with self._changed:
                if task not in self._line:  # its turn came meanwhile
                    return
                self._line.remove(task)
            task.fail(error)
