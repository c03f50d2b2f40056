"""Data-parallel training in several processes, started by `torchrun --nproc-per-node 2`.

On two cores, two processes of one thread train twice as fast as one process of two threads."""

from __future__ import annotations

import os

import torch
from torch import distributed


def initialize() -> None:
    """Join the process group of `torchrun`; does nothing without `torchrun`."""
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """The number of this process. Process 0 saves, reports and previews."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def seed_after(steps: int) -> int:
    """A seed for the samples after `steps` steps, different in each process."""
    return steps * 64 + rank()


def barrier() -> None:
    """Wait until all processes call this function."""
    if distributed.is_initialized():
        distributed.barrier()


def broadcast(module: torch.nn.Module) -> None:
    """Copy the weights of process 0 to all processes."""
    if distributed.is_initialized():
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, 0)


def average_gradients(parameters: list[torch.nn.Parameter], seconds: float) -> float:
    """Average all gradients over the processes. Returns the mean of `seconds`, so that all stop at one step."""
    if not distributed.is_initialized():
        return seconds
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    packed = torch.cat([gradient.flatten() for gradient in gradients] + [gradients[0].new_tensor([seconds])])
    distributed.all_reduce(packed)
    packed /= world_size()
    parts = torch.split_with_sizes(packed, [*(gradient.numel() for gradient in gradients), 1])
    for gradient, part in zip(gradients, parts, strict=False):
        gradient.copy_(part.view_as(gradient))
    return float(parts[-1])
