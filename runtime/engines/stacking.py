"""Stacks rows into a batch, and splits a batch into rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from runtime.engines.engine import Field, Inputs, Outputs


def shapes(inputs: Inputs) -> Hashable:
    """A key that is equal for rows that `stack` accepts together: equal field names, shapes and dtypes."""
    return tuple((name, _shape(value)) for name, value in sorted(inputs.items()) if value is not None)


def stack(rows: Sequence[Inputs]) -> dict[str, Field]:
    """The fields of rows, each stacked along a new first axis; fields that no row has are left out.

    Raises ValueError when some rows have a field and others do not, or when shapes differ.
    """
    names = {name for row in rows for name, value in row.items() if value is not None}
    return {name: _stack(name, [row.get(name) for row in rows]) for name in sorted(names)}


def unstack(outputs: Outputs, count: int) -> list[Outputs]:
    """The outputs of each of the first `count` rows of a batch."""
    return [{name: _item(value, row) for name, value in outputs.items()} for row in range(count)]


def _shape(value: Field) -> Hashable:
    if isinstance(value, tuple):
        return tuple(_shape(item) for item in value)
    return None if value is None else (tuple(value.shape), value.dtype)


def _stack(name: str, values: Sequence[Field]) -> Field:
    if any(value is None for value in values):
        raise ValueError(f"{name}: some rows of the batch have it and others do not")
    if len({_shape(value) for value in values}) > 1:
        raise ValueError(f"{name}: the rows of the batch have different shapes or dtypes")
    tuples = [value for value in values if isinstance(value, tuple)]
    if tuples:
        return tuple(torch.stack(items) for items in zip(*tuples, strict=True))
    return torch.stack([value for value in values if isinstance(value, torch.Tensor)])


def _item(value: torch.Tensor | tuple[torch.Tensor, ...], row: int) -> torch.Tensor | tuple[torch.Tensor, ...]:
    return tuple(item[row] for item in value) if isinstance(value, tuple) else value[row]
