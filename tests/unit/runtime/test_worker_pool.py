"""The worker pool: order of tasks, removal of cancelled tasks, and an orderly end."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from runtime.jobs.worker_pool import Task, WorkerPool
from runtime.low_priority import run_at_low_priority
from tests.unit.runtime.freed import is_freed, no_collector


class Work:
    """Tasks that wait for `go`; what happened to each, by its name."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.order: list[str] = []
        self.failed: dict[str, BaseException] = {}
        self.cancelled: set[str] = set()
        self.ended = threading.Semaphore(0)

    def task(self, name: str, priority: int = 2, work: Callable[[], None] | None = None) -> Task:
        def run() -> None:
            self.order.append(name)
            self.begun.release()
            assert self.go.acquire(timeout=10)
            if work:
                work()
            self.ended.release()

        def check_cancelled() -> None:
            if name in self.cancelled:
                raise InterruptedError(name)

        def fail(error: BaseException) -> None:
            self.failed[name] = error
            self.ended.release()

        return Task(priority, run, check_cancelled, fail)

    def wait(self, semaphore: threading.Semaphore, times: int = 1) -> None:
        for _ in range(times):
            assert semaphore.acquire(timeout=10)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def workers(work: Work) -> Iterator[WorkerPool]:
    found = WorkerPool(1, "test")
    yield found
    work.go.release(1000)
    found.close()


def test_tasks_run_by_priority_and_then_by_arrival(work: Work, workers: WorkerPool) -> None:
    workers.submit(work.task("running"))
    work.wait(work.begun)
    for name, priority in (("a", 2), ("low", 3), ("b", 2), ("high", 1), ("high too", 1)):
        workers.submit(work.task(name, priority))
    work.go.release(6)
    work.wait(work.ended, 6)
    assert work.order == ["running", "high", "high too", "a", "b", "low"]


def test_a_cancelled_task_leaves_the_queue_while_another_runs(work: Work, workers: WorkerPool) -> None:
    workers.submit(work.task("running"))
    work.wait(work.begun)
    workers.submit(work.task("a"))
    workers.submit(work.task("b"))
    work.cancelled.add("a")
    work.wait(work.ended)
    assert isinstance(work.failed["a"], InterruptedError)
    work.go.release(2)
    work.wait(work.ended, 2)
    assert work.order == ["running", "b"]


def test_an_exception_fails_its_task_alone(work: Work, workers: WorkerPool) -> None:
    def broken() -> None:
        raise SystemExit(3)

    work.go.release(2)
    workers.submit(work.task("a", work=broken))
    workers.submit(work.task("b"))
    work.wait(work.ended, 2)
    assert isinstance(work.failed["a"], SystemExit)
    assert work.order == ["a", "b"]


def test_no_more_threads_than_the_count(work: Work) -> None:
    workers = WorkerPool(3, "test")
    for number in range(5):
        workers.submit(work.task(str(number)))
    work.wait(work.begun, 3)
    assert not work.begun.acquire(timeout=0.2)
    work.go.release(5)
    workers.close()
    assert sorted(work.order) == ["0", "1", "2", "3", "4"]


def test_a_slot_is_acquired_before_the_task_is_chosen(work: Work) -> None:
    slots = threading.Semaphore(1)
    workers = WorkerPool(1, "test", slots)
    work.go.release(3)
    workers.submit(work.task("a"))
    work.wait(work.ended)  # and keeps its slot
    workers.submit(work.task("b"))
    workers.submit(work.task("urgent", 1))
    assert not work.ended.acquire(timeout=0.2)
    for _ in range(2):
        slots.release()
        work.wait(work.ended)
    assert work.order == ["a", "urgent", "b"]
    slots.release()
    workers.close()


def test_close_waits_until_each_queued_task_ran_or_failed(work: Work) -> None:
    workers = WorkerPool(1, "test")
    for name in ("running", "a", "b"):
        workers.submit(work.task(name))
    work.wait(work.begun)
    closing = threading.Thread(target=workers.close)
    work.cancelled |= {"a", "b"}
    closing.start()
    work.wait(work.ended, 2)
    assert work.failed.keys() == {"a", "b"}
    work.go.release()
    closing.join(10)
    assert not closing.is_alive()
    with pytest.raises(RuntimeError, match="takes no more"):
        workers.submit(work.task("late"))


class _Tensors:
    """What a task needs."""


@pytest.mark.parametrize("end", ["done", "error", "cancelled"])
def test_a_pool_that_waits_keeps_nothing_of_a_task(work: Work, workers: WorkerPool, end: str) -> None:
    """The sweeper too, which looks at tasks that wait."""

    def submit() -> weakref.ref[_Tensors]:
        tensors = _Tensors()

        def run(held: _Tensors = tensors) -> None:
            if end == "error":
                raise ArithmeticError

        task = work.task("a", work=run)
        task.fail = lambda error: work.ended.release()
        workers.submit(task)
        return weakref.ref(tensors)

    with no_collector():
        workers.submit(work.task("running"))
        work.wait(work.begun)
        tensors = submit()
        work.cancelled |= {"a"} if end == "cancelled" else set()
        time.sleep(0.3)  # of the sweeper, which looks every 0.1 s
        work.go.release(2)
        work.wait(work.ended, 2)
        assert is_freed(tensors)


def test_begin_runs_once_in_each_thread(work: Work) -> None:
    threads = []
    workers = WorkerPool(1, "test", begin=lambda: threads.append(threading.current_thread().name))
    work.go.release(2)
    workers.submit(work.task("a"))
    workers.submit(work.task("b"))
    workers.close()
    assert threads == ["test-1"]


def test_low_priority_applies_to_the_pools_thread_only() -> None:
    def of_thread() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, seen = of_thread(), []
    workers = WorkerPool(1, "test", begin=run_at_low_priority)
    workers.submit(Task(2, lambda: seen.append(of_thread()), lambda: None, lambda error: None))
    workers.close()
    assert seen[0] > before == of_thread()
