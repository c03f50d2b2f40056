"""Items kept in memory between requests within a budget of bytes; the least recently used one is evicted first."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
class _Request:
    """The uses of each key by a thread's request, and the bytes of all that it needs at the same time."""

    uses: Counter[str] = field(default_factory=Counter)
    needs: dict[str, int] = field(default_factory=dict)


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
        self._thread = threading.local()  # `request`: see `one_request`

    @contextmanager
    def one_request(self) -> Iterator[None]:
        """What this thread acquires within is for one request, which needs all of it at the same time.

        So `make_room` does not wait for these items: nothing would release them.
        """
        self._thread.request = _Request()
        try:
            yield
        finally:
            del self._thread.request

    def make_room(
        self, needs: Mapping[str, int], check_cancelled: Callable[[], None], missing: int | None = None
    ) -> None:
        """Evict idle items until a network's items fit into the budget. Call this before acquiring their keys.

        needs: the bytes of each item, by key. Those in memory stay there. missing: the bytes that are still to load; by
        default, the sum of `needs` whose keys are not in memory.

        While they do not fit, wait until another item that others use is released. When there is none, return even if
        they exceed the budget. Raises WeightsError when the request's other networks leave no room for them, whatever
        is in memory, and the errors of `check_cancelled`.
        """
        with self._released:
            self._check_own(needs)
            present = [key for key in needs if key in self._entries]
            if missing is None:
                missing = sum(nbytes for key, nbytes in needs.items() if key not in present)
            with self._pinned(present):
                while missing and not self._shrink(missing) and self._have_other_users(needs):
                    check_cancelled()
                    self._released.wait(_POLL_SECONDS)

    @contextmanager
    def _pinned(self, keys: Collection[str]) -> Iterator[None]:
        """A thread that releases an item evicts none of these."""
        for key in keys:
            self._entries[key].pins += 1
        try:
            yield
        finally:
            for key in keys:
                self._entries[key].pins -= 1

    def _check_own(self, needs: Mapping[str, int]) -> None:
        """The first network of a request may exceed the budget."""
        own = self._request.needs
        total = sum({**own, **needs}.values())
        if own and total > self._budget:
            raise WeightsError(
                f"with it, the request's weights need {total / 1e6:,.1f} MB at the same time; this server has "
                f"{self._budget / 1e6:,.1f} MB for them (LORIKEET_WEIGHTS_BYTES): use fewer or smaller networks"
            )
        own.update(needs)

    @property
    def _request(self) -> _Request:
        """This thread's request; outside of `one_request` an empty one."""
        request: _Request | None = getattr(self._thread, "request", None)
        return _Request() if request is None else request

    def _have_other_users(self, needs: Collection[str]) -> bool:
        """Whether others use items that are not needed here."""
        own = self._request.uses
        return any(entry.users > own[key] for key, entry in self._entries.items() if key not in needs)

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
        self._request.uses[key] += 1
        return entry.item

    def release(self, key: str) -> None:
        """End one use."""
        with self._lock:
            self._entries[key].users -= 1
            uses = self._request.uses
            if uses[key]:
                uses[key] -= 1
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

    def _shrink(self, more: int = 0) -> bool:
        """Evict idle items until `more` bytes fit into the budget. Returns whether they fit."""
        # Evicting an item may release another one: a merged set releases its base. So each pass starts from the first.
        while self.nbytes + more > self._budget:
            idle = next((key for key, entry in self._entries.items() if entry.is_idle), None)
            if idle is None:
                return False
            self._entries.pop(idle).item.evicted()
        return True
