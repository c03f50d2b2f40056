"""Whose turn it is: groups of rows that cannot share a UNet call take turns of a bounded number of steps."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class RoundRobin(Generic[Key]):
    """Round robin over the groups that are there: after `quantum` steps the one that waited longest is next.

    Who arrives, or comes back, waits behind those that are there: a stream of newcomers keeps nobody from its turn.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._waiting: dict[Key, None] = {}  # longest first
        self._current: Key | None = None
        self._left = 0

    def next(self, present: Collection[Key]) -> Key:
        """The group that steps now, of those present (at least one; in the order of their arrival)."""
        if self._current not in present:
            self._current = None
        stay = [key for key in self._waiting if key in present]
        self._waiting = dict.fromkeys([*stay, *(key for key in present if key != self._current)])
        if self._current is None or self._left == 0:
            if self._current is not None:
                self._waiting[self._current] = None
            self._current = next(iter(self._waiting))
            del self._waiting[self._current]
            self._left = self._quantum
        self._left -= 1
        return self._current
