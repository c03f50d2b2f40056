"""Threads that work on a queue of tasks, by priority and then by arrival.

A queued task whose job is cancelled is removed within 0.1 s.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.jobs.activity import Running, RunningWork
from runtime.jobs.long_lived import start_thread

_SWEEP_SECONDS = 0.1  # interval of the cancellation checks on queued tasks


@dataclass(order=True)
class Task:
    """`check_cancelled` is called every 0.1 s while the task is queued. What it or `work` raises goes to `fail`.

    A lower `priority` runs first."""

    priority: int
    number: int = field(init=False, default=0)
    work: Callable[[], None] = field(compare=False)
    check_cancelled: Callable[[], None] = field(compare=False)
    fail: Callable[[BaseException], None] = field(compare=False)


class WorkerPool:
    """`count` threads, started when a task needs them. `begin` runs first in each of them.

    With `slots`, a thread acquires a slot before it chooses a task, so that an urgent task that arrives meanwhile runs
    first. The task's work releases the slot.
    """

    def __init__(
        self,
        count: int,
        name: str,
        slots: threading.Semaphore | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._count, self._name, self._slots, self._begin = count, name, slots, begin
        self._queue: list[Task] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._running = RunningWork()
        self._idle = 0
        self._closed = False

    @property
    def queued(self) -> int:
        """How many tasks wait."""
        return len(self._queue)

    @property
    def running(self) -> list[Running]:
        """The tasks that run."""
        return self._running.all()

    def submit(self, task: Task) -> None:
        """Queue a task. Raises RuntimeError after `close`."""
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._name} takes no more tasks")
            task.number = next(self._numbers)
            self._queue.append(task)
            if not self._threads:
                self._start(self._sweep, "sweeper")
            if len(self._queue) > self._idle and len(self._threads) <= self._count:
                self._start(self._work, str(len(self._threads)))
            self._changed.notify_all()

    def close(self) -> None:
        """Return when the queue is empty and every thread has ended. The owner first makes `check_cancelled` raise,
        or else all queued tasks run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self, run: Callable[[], None], name: str) -> None:
        self._threads.append(start_thread(run, f"{self._name}-{name}"))

    def _work(self) -> None:
        self._begin()
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Run the next task as soon as there is one; False after `close`, once the queue is empty.

        A thread that waits refers to no task: a job's tensors and weights may hang on it.
        """
        if self._slots is not None:
            self._slots.acquire()
        task = self._next()
        if task is None:
            if self._slots is not None:
                self._slots.release()
            return False
        with self._running.of(self._name):
            try:
                task.work()
            except BaseException as error:
                task.fail(error)
        return True

    def _next(self) -> Task | None:
        """The next task, as soon as there is one; None after `close`, once the queue is empty."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._idle -= 1
            if not self._queue:
                return None
            first = min(self._queue)
            self._queue.remove(first)
            return first

    def _sweep(self) -> None:
        """Remove cancelled tasks from the queue, also while every thread is busy."""
        while not self._closed or self._queue:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
            self._retire_cancelled()
            time.sleep(_SWEEP_SECONDS)

    def _retire_cancelled(self) -> None:
        with self._changed:
            waiting = list(self._queue)
        for task in waiting:
            self._retire(task)

    def _retire(self, task: Task) -> None:
        try:
            task.check_cancelled()
        except BaseException as error:
            with self._changed:
                if task not in self._queue:  # its turn came meanwhile
                    return
                self._queue.remove(task)
            task.fail(error)
