"""MergeThreads: every item once, one torch thread in each thread, and an error ends the call."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import torch

from runtime.engines.torch.merge_threads import MergeThreads
from tests.unit.runtime.freed import is_freed, no_collector

_WAIT = 10


@pytest.fixture
def merge_threads() -> MergeThreads:
    return MergeThreads(2)


def test_every_item_goes_to_one_thread_and_every_thread_has_some(merge_threads: MergeThreads) -> None:
    shares: list[list[int]] = []
    both_have_one = threading.Barrier(2)

    def work(items: Iterator[int]) -> None:
        share = [next(items)]
        both_have_one.wait(_WAIT)
        shares.append(share + list(items))

    merge_threads.map(work, range(100))
    assert len(shares) == 2
    assert sorted(shares[0] + shares[1]) == list(range(100))


def test_its_threads_have_one_torch_thread_and_all_others_keep_theirs() -> None:
    torch.set_num_threads(2)
    seen: list[int] = []
    merge_threads = MergeThreads(2)
    merge_threads.map(lambda items: seen.extend(torch.get_num_threads() for _ in items), range(4))
    assert seen == [1] * 4
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2


def test_every_thread_calls_begin_first() -> None:
    begun: list[int] = []
    MergeThreads(2, lambda: begun.append(threading.get_native_id()))
    assert len(set(begun)) == 2


def test_an_error_is_raised_when_all_threads_have_ended(merge_threads: MergeThreads) -> None:
    ended = threading.Event()

    def work(items: Iterator[int]) -> None:
        for item in items:
            if item == 0:
                raise InterruptedError
        ended.set()

    with pytest.raises(InterruptedError):
        merge_threads.map(work, count())  # endless: only the error ends it
    assert ended.is_set()


def test_an_error_keeps_nothing_of_the_work(merge_threads: MergeThreads) -> None:
    """A LoRA that is refused in the middle leaves no half of a merged network in memory."""

    def fail() -> weakref.ref[torch.Tensor]:
        merged = torch.zeros(3)

        def work(items: Iterator[int]) -> None:
            raise InterruptedError(merged)

        with pytest.raises(InterruptedError):
            merge_threads.map(work, [1])
        return weakref.ref(merged)

    with no_collector():
        assert is_freed(fail())


def test_it_works_after_an_error(merge_threads: MergeThreads) -> None:
    def fail(items: Iterator[int]) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        merge_threads.map(fail, [1])
    done: list[int] = []
    merge_threads.map(done.extend, range(5))
    assert sorted(done) == list(range(5))
