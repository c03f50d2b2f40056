"""A lock for each name, which exists only while a thread uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WAIT_SECONDS = 0.5  # between two calls of check_cancelled


class NamedLocks:
    """Admits one thread at a time for each name: the next one finds what the first one made."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()

    @contextmanager
    def alone(self, name: str, check_cancelled: Callable[[], None]) -> Iterator[None]:
        """Raises what `check_cancelled` raises, which is called while the thread waits."""
        with self._guard:
            lock, users = self._locks.get(name, (threading.Lock(), 0))
            self._locks[name] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=_WAIT_SECONDS):
                check_cancelled()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                lock, users = self._locks.pop(name)
                if users > 1:
                    self._locks[name] = (lock, users - 1)
