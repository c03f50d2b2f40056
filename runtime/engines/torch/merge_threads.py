"""Threads that share the work on many tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


class MergeThreads:
    """Threads that each process whole tensors. Each uses one torch thread.

    torch's own threads share one operation and wait for each other at its end. When operations are short and waiting
    threads sleep (see runtime/supervisor/server.py), the waiting takes as long as the work.
    """

    def __init__(self, count: int, begin: Callable[[], None] = lambda: None) -> None:
        """`begin` runs first in each thread.

        Make this before another thread first uses torch. A thread gets its own torch thread count only from the count
        for new threads.
        """
        self._count = count
        self._pool = ThreadPoolExecutor(count, "merge", lambda: _begin(begin))
        others = torch.get_num_threads()
        started = threading.Barrier(count)
        wait([self._pool.submit(started.wait) for _ in range(count)])
        torch.set_num_threads(others)

    def map(self, work: Callable[[Iterator[T]], None], items: Iterable[T]) -> None:
        """Call `work` in each thread with an iterator; each item goes to one of the iterators, in order.

        Returns when all threads have ended. Raises the error of one of them; the others then get no further item.
        """
        left, lock = iter(items), threading.Lock()
        failed = threading.Event()

        def mine() -> Iterator[T]:
            while not failed.is_set():
                with lock:
                    try:
                        item = next(left)
                    except StopIteration:
                        return
                yield item

        def run() -> None:
            try:
                work(mine())
            except BaseException:
                failed.set()
                raise

        running = [self._pool.submit(run) for _ in range(self._count)]
        wait(running)
        try:
            while running:
                running.pop().result()
        finally:
            running.clear()  # else an error and this frame would keep each other, and the tensors of `work`


def _begin(begin: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # the first request fixes the count of this thread
    begin()
