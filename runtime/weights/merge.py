"""Sums a weight and its changes.

A large weight is summed in pieces. A piece stays in the processor's cache until all products are added to it. Without
pieces, each product would read and write the whole weight in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.weights.change import Change, LowRank

_PIECE = 1 << 18  # numbers; in float32 a megabyte, which fits several times into a third-level cache


def merge(start: torch.Tensor, changes: Sequence[Change], out: torch.Tensor) -> None:
    """Write start + sum(change(start)), summed in float32, to `out`, of any floating dtype and strides.

    Low-rank changes are added first. Each change is computed from `start`, not from the sum so far. `out` may be a
    convolution with more input channels than `start` and some changes: these add nothing to the added channels.
    """
    low_rank = [(change.scale, *change.factors(out.device)) for change in changes if isinstance(change, LowRank)]
    others = [change for change in changes if not isinstance(change, LowRank)]
    # Other kinds need the whole weight. On a GPU, pieces would only add calls.
    original = start.to(out.device, torch.float32) if others else start
    start = _pad_inputs(start, out.shape)
    rows = len(out) if others or out.device.type != "cpu" else max(1, _PIECE * len(out) // out.numel())
    is_exact = out.dtype == torch.float32 and out.is_contiguous()
    scratch = out if is_exact else torch.empty((rows, *out.shape[1:]), dtype=torch.float32, device=out.device)
    split = (torch.split(tensor, rows) for tensor in (out, start, *(up for _, up, _ in low_rank)))
    for placed, begun, *ups in zip(*split, strict=True):
        total = placed if is_exact else scratch[: len(placed)]
        total.copy_(begun)
        products = total.view(len(total), -1)
        for (scale, _, down), up in zip(low_rank, ups, strict=True):
            products[:, : down.shape[1]].addmm_(up, down, alpha=scale)
        for change in others:
            delta = change.delta(original)
            (total if delta.shape == total.shape else total[:, : delta.shape[1]]).add_(delta)
        if not is_exact:
            placed.copy_(total)


def _pad_inputs(base: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A convolution's weight [out, in, h, w] for more input channels: the added channels are zero, as in IC-Light."""
    if base.shape == shape:
        return base
    padded = base.new_zeros(shape)
    padded[:, : base.shape[1]] = base
    return padded
