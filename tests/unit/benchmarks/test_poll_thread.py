"""A thread polls while a block runs, and not afterwards."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.poll_thread import PollThread


def test_it_polls_until_the_block_ends() -> None:
    polls: list[str] = []
    polled_twice = threading.Event()

    def poll() -> None:
        polls.append(threading.current_thread().name)
        if len(polls) == 2:
            polled_twice.set()

    with PollThread(poll, 0.001):
        assert polled_twice.wait(10)
    count = len(polls)
    time.sleep(0.05)
    assert len(polls) == count
    assert threading.current_thread().name not in polls


def test_a_short_block_is_not_polled() -> None:
    polls: list[int] = []
    with PollThread(lambda: polls.append(1), 60):
        pass
    assert polls == []


def test_an_error_of_the_block_ends_the_thread_too() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), PollThread(lambda: None, 0.001):
        raise ZeroDivisionError
    assert threading.active_count() == before
