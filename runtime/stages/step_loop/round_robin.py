"""Round robin over keys that cannot share a call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class RoundRobin(Generic[Key]):
    """Each key has a turn of a bounded number of calls; then the key that has waited longest is next.

    A key that arrives, or comes back, waits behind those that are present: a stream of new keys blocks no other one.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, None] = {}  # longest first
        self._current: Key | None = None
        self._calls_left = 0

    def clear(self) -> None:
        """Forget all keys: none is present."""
        self._waiting.clear()
        self._current = None

    def next(self, present: Mapping[Key, int]) -> Key:
        """The key of the next call. `present`: the calls of a turn by key, in order of arrival; not empty."""
        if self._current not in present:
            self._current = None
        stay = [key for key in self._waiting if key in present]
        self._waiting = dict.fromkeys([*stay, *(key for key in present if key != self._current)])
        if self._current is None or self._calls_left == 0:
            if self._current is not None:
                self._waiting[self._current] = None
            self._current = next(iter(self._waiting))
            del self._waiting[self._current]
            self._calls_left = present[self._current]
        self._calls_left -= 1
        return self._current
