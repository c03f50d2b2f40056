"""Gives the memory of dropped networks back to the GPU."""

from __future__ import annotations

import gc

import torch


def free_memory() -> None:
    """TensorRT does not allocate through torch: it needs what torch would keep for its next tensors."""
    gc.collect()  # networks, engines and their caches refer to each other
    torch.cuda.empty_cache()
