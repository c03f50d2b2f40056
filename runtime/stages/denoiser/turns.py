"""Whose turn it is: groups of rows that cannot share a UNet call take turns of a bounded number of steps."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Turns(Generic[Key]):
    """Round robin over the groups that are there: after `quantum` steps the one that waited longest is next."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._served: dict[Key, None] = {}  # in the order of their last turn, latest last
        self._current: Key | None = None
        self._left = 0

    def next(self, present: Collection[Key]) -> Key:
        """The group that steps now, of those present (at least one; in the order of their arrival)."""
        if self._current not in present or self._left == 0:
            waiting = [key for key in self._served if key in present]
            fresh = [key for key in present if key not in self._served]
            self._served = dict.fromkeys(waiting)
            self._current = (fresh or waiting)[0]
            self._left = self._quantum
        assert self._current is not None
        self._served.pop(self._current, None)
        self._served[self._current] = None
        self._left -= 1
        return self._current
