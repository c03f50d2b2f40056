"""Threads that share out work on many tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


class MergeThreads:
    """Each of its threads works on whole tensors, with one thread of torch's.

    torch's own threads divide one operation, and meet at the end of each. Where operations are short and waiting
    threads sleep (see runtime/supervisor/server.py), the meetings take as long as the work.
    """

    def __init__(self, size: int, begin: Callable[[], None] = lambda: None) -> None:
        """`begin` runs first in each of the threads. To be made where no other thread uses torch for the first time:
        torch lets a thread have a number of its own only by way of the number that new threads get."""
        self._size = size
        self._pool = ThreadPoolExecutor(size, "merge_threads", lambda: _begin(begin))
        others = torch.get_num_threads()
        started = threading.Barrier(size)
        wait([self._pool.submit(started.wait) for _ in range(size)])
        torch.set_num_threads(others)

    def map(self, work: Callable[[Iterator[T]], None], items: Iterable[T]) -> None:
        """Call `work` in each thread; every item is in the iterator of one of them, in turn.

        Returns when all have ended. Raises what one of them raised; the others then get no further item.
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

        running = [self._pool.submit(run) for _ in range(self._size)]
        wait(running)
        for future in running:
            future.result()


def _begin(begin: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes the number for new ones when it first asks, be it later: so here and now
    begin()
