"""Items kept in memory between requests within a budget of bytes; the least recently used one is evicted first."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from runtime.engines.engine import WeightsError


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
    """`pins`: items in memory that need this one."""

    item: Item
    users: int = 0
    pins: int = 0

    @property
    def is_idle(self) -> bool:
        return not self.users and not self.pins


class LruBudget(Generic[Item]):
    """Items by key. An item in use is never evicted: `make_room` waits until it is released."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._entries: OrderedDict[str, _Entry[Item]] = OrderedDict()
        self._lock = threading.RLock()
        self._released = threading.Condition(self._lock)
        self._thread = threading.local()  # `own` and `needs`: see `one_request`

    @contextmanager
    def one_request(self) -> Iterator[None]:
        """What this thread acquires within is for one request, which needs all of it at the same time.

        So `make_room` does not wait for these items: nothing would release them.
        """
        self._thread.own, self._thread.needs = Counter(), {}
        try:
            yield
        finally:
            del self._thread.own, self._thread.needs

    def make_room(
        self, needs: Mapping[str, int], check_cancelled: Callable[[], None], missing: int | None = None
    ) -> None:
        """Evict idle items until those of a network fit into the budget.

        needs: the bytes of each, by key; none is evicted here, and none may be in use by the caller yet. missing: how
        many of these bytes are not in memory; by default, those of the keys that are not.

        While they do not fit, wait until an item that others use is released. When there is none, return even if they
        exceed the budget. Call this before acquiring the keys. Raises WeightsError when the request's other networks
        leave no room for them, whatever is in memory, and the errors of `check_cancelled`.
        """
        with self._released:
            self._check_own(needs)
            if missing is None:
                missing = sum(nbytes for key, nbytes in needs.items() if key not in self._entries)
            while missing and not self._shrink(missing, needs) and self._have_other_users():
                check_cancelled()
                self._released.wait(_POLL_SECONDS)

    def _check_own(self, needs: Mapping[str, int]) -> None:
        """The first network of a request may exceed the budget."""
        own: dict[str, int] = getattr(self._thread, "needs", {})
        total = sum({**own, **needs}.values())
        if own and total > self._budget:
            raise WeightsError(
                f"with it, the request's weights need {total / 1e6:,.1f} MB at the same time; this server has "
                f"{self._budget / 1e6:,.1f} MB for them (LORIKEET_WEIGHTS_BYTES): use fewer or smaller networks"
            )
        own.update(needs)

    @property
    def _own(self) -> Counter[str]:
        """The uses of each key by this thread's request."""
        own: Counter[str] | None = getattr(self._thread, "own", None)
        return Counter() if own is None else own

    def _have_other_users(self) -> bool:
        own = self._own
        return any(entry.users > own[key] for key, entry in self._entries.items())

    def make_place(self, prefix: str, most: int, check_cancelled: Callable[[], None]) -> None:
        """Evict idle items with keys of this prefix, the least recently used first, until at most `most` are left.

        While more are in use, wait until one is released. Raises the errors of `check_cancelled`.
        """
        with self._released:
            while len(present := [key for key in self._entries if key.startswith(prefix)]) > most:
                idle = next((key for key in present if self._entries[key].is_idle), None)
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
                return self._use(key)
        item = make()
        with self._lock:
            self._entries[key] = _Entry(item)
            self._use(key)
            self._shrink()
        return item

    def _use(self, key: str) -> Item:
        self._entries.move_to_end(key)
        entry = self._entries[key]
        entry.users += 1
        self._own[key] += 1
        return entry.item

    def release(self, key: str) -> None:
        """End one use."""
        with self._lock:
            self._entries[key].users -= 1
            if self._own[key]:
                self._own[key] -= 1
            self._shrink()
            self._released.notify_all()

    def pin(self, key: str) -> None:
        """Keep an item while another one in memory needs it: until `unpin`."""
        with self._lock:
            self._entries[key].pins += 1

    def unpin(self, key: str) -> None:
        with self._lock:
            self._entries[key].pins -= 1
            self._shrink()
            self._released.notify_all()

    @property
    def nbytes(self) -> int:
        """Bytes of all items."""
        with self._lock:
            return sum(entry.item.nbytes for entry in self._entries.values())

    def _shrink(self, more: int = 0, keep: Collection[str] = ()) -> bool:
        """Evict idle items except `keep` until `more` bytes fit into the budget. Returns whether they fit."""
        # Evicting an item may release another one: a merged set releases its base. So each pass starts from the first.
        while self.nbytes + more > self._budget:
            idle = next((key for key, entry in self._entries.items() if entry.is_idle and key not in keep), None)
            if idle is None:
                return False
            self._entries.pop(idle).item.evicted()
        return True
