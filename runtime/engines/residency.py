"""Weights kept in memory between requests: least recently used first out, within a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something with a size in memory, that can be told that it is dropped."""

    @property
    def nbytes(self) -> int: ...

    def dropped(self) -> None: ...


Item = TypeVar("Item", bound=Sized)
_ASK_SECONDS = 0.1  # how often one that waits for room asks whether to stop


@dataclass
class _Entry(Generic[Item]):
    item: Item
    users: int


class Residency(Generic[Item]):
    """Items by key. One in use is never dropped; who needs more than the budget leaves waits for it in `make_room`."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[str, _Entry[Item]] = OrderedDict()
        self._lock = threading.RLock()
        self._released = threading.Condition(self._lock)

    def make_room(self, nbytes: int, stop: Callable[[], None], keep: str = "") -> None:
        """Drop what is idle, but for the key `keep`, until `nbytes` more fit into the budget; while they do not, wait
        until what is in use is released. What alone is larger than the budget gets its way once nothing else is in
        use.

        `stop` is asked meanwhile, and may raise. To be called before the keys that need the room are acquired."""
        with self._released:
            while not self._shrink(nbytes, keep) and any(entry.users for entry in self._entries.values()):
                stop()
                self._released.wait(_ASK_SECONDS)

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._entries

    def acquire(self, key: str, make: Callable[[], Item]) -> Item:
        """The item of that key, made if need be; in use until `release`. One thread at a time makes items."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                self._entries[key].users += 1
                return self._entries[key].item
        item = make()
        with self._lock:
            self._entries[key] = _Entry(item, 1)
            self._shrink()
        return item

    def release(self, key: str) -> None:
        with self._lock:
            self._entries[key].users -= 1
            self._shrink()
            self._released.notify_all()

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        with self._lock:
            return sum(entry.item.nbytes for entry in self._entries.values())

    def _shrink(self, more: int = 0, keep: str = "") -> bool:
        """Drop idle items but `keep` until `more` bytes fit into the budget; whether they do."""
        # Dropping an item may release another (a merged set its base), so look again from the start each time.
        while self.nbytes + more > self._budget:
            idle = next((key for key, entry in self._entries.items() if entry.users == 0 and key != keep), None)
            if idle is None:
                return False
            self._entries.pop(idle).item.dropped()
        return True
