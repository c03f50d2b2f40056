"""The tensor pool: evicted memory is used again, and freed memory leaves the process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from benchmarks.smaps import private_bytes
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import never_cancelled
from runtime.engines.torch.parameter_spec import ParameterSpec, TensorForm
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.memory import give_back
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_cache, noise
from tests.unit.runtime.merging import Changes

_MB = 1 << 20
_BLOCKS = 200
_CONVOLUTION = "conv_out.weight"


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


def test_a_recycled_tensor_is_taken_once_for_its_shape_and_form() -> None:
    tensor_pool, form = TensorPool(), TensorForm(torch.float32, torch.channels_last, torch.device("cpu"))
    shape = torch.Size([4, 2, 3, 3])
    recycled = form.empty(shape)
    with tensor_pool.collecting():
        tensor_pool.recycle([recycled])
        assert tensor_pool.take(torch.Size([2, 4, 3, 3]), form) is None
        for other in (replace(form, dtype=torch.int32), replace(form, memory_format=torch.contiguous_format)):
            assert tensor_pool.take(shape, other) is None
        assert tensor_pool.take(shape, form) is recycled
        assert tensor_pool.take(shape, form) is None
        tensor_pool.recycle([recycled])
    assert tensor_pool.take(shape, form) is None, "kept after its collecting block"
    tensor_pool.recycle([recycled])
    assert tensor_pool.take(shape, form) is None


def test_a_device_may_be_named_with_its_number() -> None:
    """As on a GPU: a tensor that was made on `cuda` is on `cuda:0`."""
    tensor_pool, form = TensorPool(), TensorForm(torch.float32, torch.contiguous_format, torch.device("cpu", 0))
    recycled = form.empty(torch.Size([3]))
    assert recycled.device != form.device
    with tensor_pool.collecting():
        tensor_pool.recycle([recycled])
        assert tensor_pool.take(recycled.shape, form) is recycled


@pytest.mark.parametrize("memory_formats", list(permutations([torch.channels_last, torch.contiguous_format])))
def test_engines_of_other_memory_formats_share_a_budget(
    sd15: Checkpoint, memory_formats: tuple[torch.memory_format, torch.memory_format]
) -> None:
    """The second one evicts the weights of the first, whose convolutions have its shapes in another layout.

    TensorRT, whose parameters are contiguous, shares a GPU with the torch engine, whose convolutions are channels_last.
    """
    shapes = {name: torch.Size(shape) for name, shape in sd15.unet.shapes.items()}
    out, *into = shapes[_CONVOLUTION]
    change = LowRank(noise(2, *into, seed=1), noise(out, 2, 1, 1, seed=2), 1.0)
    weights = WeightSet(sd15.unet, (Changes("a", {_CONVOLUTION: change}),))
    cache = make_cache(budget=4 * sum(shape.numel() for shape in [*shapes.values(), shapes[_CONVOLUTION]]))
    for memory_format in memory_formats:
        form = TensorForm(torch.float32, memory_format, torch.device("cpu"))
        bound = cache.bind(ParameterSpec("any", shapes, form), weights, never_cancelled)
        kernels = [tensor for tensor in bound.tensors.values() if tensor.dim() == 4 and tensor.shape[-1] == 3]
        assert kernels and all(kernel.is_contiguous(memory_format=memory_format) for kernel in kernels)
        bound.release()
    assert cache.counts.evictions == 2
