"""Several processes that train one network together, started by `torchrun --nproc-per-node 2`.

Layers this small gain little from a second thread, and twice as much from a second process."""

from __future__ import annotations

import os

import torch
from torch import distributed


def join() -> None:
    """Meet the other processes; nothing where `torchrun` did not start this one."""
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """This process's number, from 0: that one saves, reports and previews."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def seed_of(steps: int) -> int:
    """A seed for the samples after `steps` steps, different in each process."""
    return steps * 64 + rank()


def wait() -> None:
    """Until all processes have come here."""
    if distributed.is_initialized():
        distributed.barrier()


def share(module: torch.nn.Module) -> None:
    """Give every process the first one's weights."""
    if distributed.is_initialized():
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, 0)


def average(parameters: list[torch.nn.Parameter], seconds: float) -> float:
    """Give every process the mean of all gradients; returns the mean of `seconds`, so that all stop at one step."""
    if not distributed.is_initialized():
        return seconds
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    packed = torch.cat([gradient.flatten() for gradient in gradients] + [gradients[0].new_tensor([seconds])])
    distributed.all_reduce(packed)
    packed /= count()
    parts = torch.split_with_sizes(packed, [*(gradient.numel() for gradient in gradients), 1])
    for gradient, part in zip(gradients, parts, strict=False):
        gradient.copy_(part.view_as(gradient))
    return float(parts[-1])
