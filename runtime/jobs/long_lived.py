"""Threads that must live as long as their process.

A stage without one of its threads would accept calls and never answer them. So the process ends with the thread, and
the supervisor replaces the server.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger("lorikeet")


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread that runs `run`. An exception that leaves `run` is logged and ends the process."""

    def guarded() -> None:
        try:
            run()
        except BaseException:
            log.critical("the thread %s has failed; the process ends", name, exc_info=True)
            end_process()

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread


def end_process() -> None:
    """End the process at once. `sys.exit` would wait for other threads."""
    os._exit(1)
