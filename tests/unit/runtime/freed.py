"""Whether objects are freed as soon as nothing refers to them, without a run of the garbage collector."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SECONDS = 5


@contextmanager
def no_collector() -> Iterator[None]:
    """Inside, an object in a cycle of references stays. No log record of pytest keeps an exception."""
    logger = logging.getLogger("lorikeet")
    gc.disable()
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False
        gc.enable()


def is_freed(reference: weakref.ref[Any]) -> bool:
    """Other threads have a moment for it."""
    deadline = time.monotonic() + _SECONDS
    while reference() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    return reference() is None
