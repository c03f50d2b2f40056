"""An object in a child process answers calls and reports its exceptions."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.subprocess_object import SubprocessFailed, SubprocessObject


def test_the_object_is_created_once_and_keeps_its_state() -> None:
    with SubprocessObject(Counter, "abba") as counter:
        counter.call("update", "aa")
        assert counter.call("most_common", 1) == [("a", 4)]


def test_an_exception_returns_its_traceback_and_the_process_goes_on() -> None:
    with SubprocessObject(Counter) as counter:
        with pytest.raises(SubprocessFailed, match="dictionary is empty"):
            counter.call("popitem")
        assert counter.call("total") == 0
