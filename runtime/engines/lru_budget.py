"""Items kept in memory between requests within a budget of bytes; the least recently used one is evicted first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Resident(Protocol):
    """Something with a size in memory."""

    @property
    def nbytes(self) -> int: ...

    def evicted(self) -> None:
        """Called once, when the item has left the cache."""


Item = TypeVar("Item", bound=Resident)
_POLL_SECONDS = 0.1  # how often `make_room` calls check_cancelled while it waits


@dataclass
class _Entry(Generic[Item]):
    item: Item
    users: int


class LruBudget(Generic[Item]):
    """Items by key. An item in use is never evicted: `make_room` waits until it is released."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[str, _Entry[Item]] = OrderedDict()
        self._lock = threading.RLock()
        self._released = threading.Condition(self._lock)

    def make_room(self, nbytes: int, check_cancelled: Callable[[], None], keep: str = "") -> None:
        """Evict idle items, except the key `keep`, until `nbytes` more fit into the budget.

        While they do not fit, wait until an item in use is released. When no item is in use, return even if they exceed
        the budget. Call this before acquiring the keys that need the memory. Raises the errors of `check_cancelled`.
        """
        with self._released:
            while not self._shrink(nbytes, keep) and any(entry.users for entry in self._entries.values()):
                check_cancelled()
                self._released.wait(_POLL_SECONDS)

    def make_place(self, prefix: str, most: int, check_cancelled: Callable[[], None]) -> None:
        """Evict idle items with keys of this prefix, the least recently used first, until at most `most` are left.

        While more are in use, wait until one is released. Raises the errors of `check_cancelled`.
        """
        with self._released:
            while len(present := [key for key in self._entries if key.startswith(prefix)]) > most:
                idle = next((key for key in present if self._entries[key].users == 0), None)
                if idle is not None:
                    self._entries.pop(idle).item.evicted()
                    continue
                check_cancelled()
                self._released.wait(_POLL_SECONDS)

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: str) -> Item | None:
        """The item of a key, without starting a use; None when there is none."""
        with self._lock:
            entry = self._entries.get(key)
            return entry.item if entry else None

    def acquire(self, key: str, make: Callable[[], Item]) -> Item:
        """The item of a key, in use until `release`. Makes a missing item; only one thread at a time may do so."""
        with self._lock:
            if key in self._entries:
                return self.retain(key)
        item = make()
        with self._lock:
            self._entries[key] = _Entry(item, 1)
            self._shrink()
        return item

    def retain(self, key: str) -> Item:
        """The item of an existing key. Starts one more use, which ends with one more `release`."""
        with self._lock:
            self._entries.move_to_end(key)
            entry = self._entries[key]
            entry.users += 1
            return entry.item

    def release(self, key: str) -> None:
        """End one use."""
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
        """Evict idle items except `keep` until `more` bytes fit into the budget. Returns whether they fit."""
        # Evicting an item may release another one: a merged set releases its base. So each pass starts from the first.
        while self.nbytes + more > self._budget:
            idle = next((key for key, entry in self._entries.items() if entry.users == 0 and key != keep), None)
            if idle is None:
                return False
            self._entries.pop(idle).item.evicted()
        return True
