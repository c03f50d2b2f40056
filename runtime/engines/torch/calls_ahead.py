"""Lets the processor prepare the next call while the GPU runs this one."""

from __future__ import annotations

from collections import deque

import torch


class CallsAhead:
    """Bounds the queued calls: one runs and one waits behind it, so that a cancel and an arrival take effect soon.

    Calls return before the GPU has run them. Without a bound, a job's calls would all be queued at once.
    """

    def __init__(self) -> None:
        self._ends: deque[torch.cuda.Event] = deque()

    def begin(self) -> None:
        """Wait until at most one call is left in the queue."""
        while len(self._ends) > 1:
            self._ends.popleft().synchronize()

    def end(self) -> None:
        """A call was queued."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # the thread sleeps while it waits
        event.record()
        self._ends.append(event)
