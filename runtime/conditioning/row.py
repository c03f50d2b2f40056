"""Rows: what the UNet is asked, one latent at a time. The one row type of the step loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from runtime.engines.engine import Inputs

Field = torch.Tensor | tuple[torch.Tensor, ...] | None


@dataclass(frozen=True)
class Row:
    """One question to the UNet. A feature is a producer of a field; the loop knows none of them.

    latent [4, h, w]; t []; text [T, D]; pooled [P] and time_ids [6] (SDXL); timestep_cond [E] (LCM-distilled UNets);
    concat [C, h, w] (IC-Light: further input channels); residuals (ControlNet: one [C, h, w] for each of the UNet's
    skip connections, the middle block's last); ip_k and ip_v (IP-Adapter: one [adapters, tokens, inner] for each
    cross-attention layer, the adapter's scale folded into ip_v; an adapter with fewer tokens repeats them, which
    leaves its softmax as it is); ip_mask [adapters, h, w] (where each adapter acts; None: everywhere).
    """

    latent: torch.Tensor
    t: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    timestep_cond: torch.Tensor | None = None
    concat: torch.Tensor | None = None
    residuals: tuple[torch.Tensor, ...] | None = None
    ip_k: tuple[torch.Tensor, ...] | None = None
    ip_v: tuple[torch.Tensor, ...] | None = None
    ip_mask: torch.Tensor | None = None

    @property
    def shapes(self) -> tuple[object, ...]:
        """Equal for rows that can be stacked."""
        return tuple(_shape(getattr(self, field.name)) for field in fields(self))


def stack(rows: Sequence[Row]) -> Inputs:
    """The fields of rows of equal shapes, each stacked along a new first axis."""
    return {field.name: _stack([getattr(row, field.name) for row in rows]) for field in fields(Row)}


def blocks(rows: Sequence[Row], size: int) -> list[tuple[Inputs, int]]:
    """Rows in blocks of exactly `size`, as (stacked inputs, how many of them count); the last is filled up.

    A row's result in float32 depends on the size of its block (by 1e-6), never on its place or its neighbours: a
    fixed size makes it the same whatever else is in the batch.
    """
    found = []
    for start in range(0, len(rows), size):
        block = list(rows[start : start + size])
        found.append((stack(block + [block[-1]] * (size - len(block))), len(block)))
    return found


def _shape(value: Field) -> object:
    if isinstance(value, tuple):
        return tuple(_shape(item) for item in value)
    return None if value is None else (tuple(value.shape), value.dtype)


def _stack(values: Sequence[Any]) -> Field:
    first = values[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(torch.stack(items) for items in zip(*values, strict=True))
    return torch.stack(list(values))
