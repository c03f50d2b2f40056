"""What was freed leaves the process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.smaps import private_bytes
from runtime.engines.torch.tensor_pool import TensorPool, give_back

_MB = 1 << 20
_BLOCKS = 200


def test_freed_blocks_between_kept_ones_go_back_to_the_system() -> None:
    def freed() -> list[torch.Tensor]:
        torch.ones(30 * _MB, dtype=torch.uint8)  # once freed, glibc keeps blocks of up to this size
        blocks = [torch.ones(_MB, dtype=torch.uint8) for _ in range(_BLOCKS)]
        return blocks[::2]

    with ThreadPoolExecutor(1) as thread:  # whose arena is not the main one
        kept = thread.submit(freed).result()
        before = private_bytes(os.getpid())
        give_back()
        assert before - private_bytes(os.getpid()) > 0.8 * (_BLOCKS - len(kept)) * _MB


def test_a_dropped_tensor_is_taken_once_by_one_of_its_kind() -> None:
    tensor_pool, dropped = TensorPool(), torch.ones(2, 3)
    kind = (dropped.shape, dropped.dtype, dropped.device)
    with tensor_pool.collecting():
        tensor_pool.drop([dropped])
        assert tensor_pool.take(torch.Size([3, 2]), dropped.dtype, dropped.device) is None
        assert tensor_pool.take(dropped.shape, torch.bfloat16, dropped.device) is None
        assert tensor_pool.take(*kind) is dropped
        assert tensor_pool.take(*kind) is None
        tensor_pool.drop([dropped])
    assert tensor_pool.take(*kind) is None, "kept beyond the making that it was dropped for"
    tensor_pool.drop([dropped])
    assert tensor_pool.take(*kind) is None
