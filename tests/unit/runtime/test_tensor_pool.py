"""The tensor pool: evicted memory is used again, and freed memory leaves the process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.smaps import private_bytes
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.memory import give_back

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


def test_a_recycled_tensor_is_taken_once_for_its_shape_dtype_and_device() -> None:
    tensor_pool, recycled = TensorPool(), torch.ones(2, 3)
    kind = (recycled.shape, recycled.dtype, recycled.device)
    with tensor_pool.collecting():
        tensor_pool.recycle([recycled])
        assert tensor_pool.take(torch.Size([3, 2]), recycled.dtype, recycled.device) is None
        assert tensor_pool.take(recycled.shape, torch.bfloat16, recycled.device) is None
        assert tensor_pool.take(*kind) is recycled
        assert tensor_pool.take(*kind) is None
        tensor_pool.recycle([recycled])
    assert tensor_pool.take(*kind) is None, "kept after its collecting block"
    tensor_pool.recycle([recycled])
    assert tensor_pool.take(*kind) is None
