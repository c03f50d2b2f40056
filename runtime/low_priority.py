"""Runs work at the lowest priority, so that running jobs keep the cores. Importing this takes no torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Measured (benchmarks/cases/loading.py): at 5 a step took 1.6 times as long, at 19 1.2 times. Loading
# took 6 s at 5, and 9 s at 19.
_NICE = 19
T = TypeVar("T")


def run_at_low_priority() -> None:
    """Lower the priority of this thread and of the torch threads that it starts. Loading a checkpoint then hardly slows
    the denoising steps of running jobs."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def call_at_low_priority(work: Callable[[], T]) -> T:
    """Return or raise what `work` does, in a new low-priority thread. A thread cannot raise its priority again."""
    with ThreadPoolExecutor(1, "background", run_at_low_priority) as thread:
        return thread.submit(work).result()
