"""Callers at the same time share one call, so that a client that asks often costs the servers little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """`await shared()` awaits `call`, or returns a result that is at most `seconds` old."""

    def __init__(self, call: Callable[[], Awaitable[T]], seconds: float) -> None:
        self._call, self._seconds = call, seconds
        self._lock = asyncio.Lock()
        self._results: list[tuple[float, T]] = []  # at most one: its end, and the result

    async def __call__(self) -> T:
        async with self._lock:
            if not self._results or self._results[0][0] < time.monotonic():
                result = await self._call()
                self._results = [(time.monotonic() + self._seconds, result)]
            return self._results[0][1]
