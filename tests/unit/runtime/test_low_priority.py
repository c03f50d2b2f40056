"""Work in the background: with the least priority, and its outcome is the caller's."""

from __future__ import annotations

import os
import threading

import pytest

from runtime.low_priority import call_at_low_priority


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_it_gives_way_and_its_caller_does_not() -> None:
    before = _nice()
    assert call_at_low_priority(_nice) == 19
    assert _nice() == before


def test_an_exception_reaches_the_caller() -> None:
    def stopped() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        call_at_low_priority(stopped)
