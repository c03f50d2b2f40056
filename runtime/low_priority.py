"""Work that leaves the cores to who runs. Importing this takes no torch."""

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
    """Let this thread, and those of torch that it starts, have what the others leave of the cores: a checkpoint that
    is loaded shall not slow down the steps of who runs."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def call_at_low_priority(work: Callable[[], T]) -> T:
    """What `work` returns or raises, done by a thread of its own that gives way (a thread that did cannot return)."""
    with ThreadPoolExecutor(1, "background", run_at_low_priority) as thread:
        return thread.submit(work).result()
