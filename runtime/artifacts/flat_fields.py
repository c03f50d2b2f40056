"""Names of a network's fields in a graph, whose inputs and outputs are single tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def flat_name(field: str, index: int) -> str:
    """The name of one tensor of a field that is a tuple: `residuals`, 3 -> `residual_3`."""
    return f"{field.removesuffix('s')}_{index}"


def flatten(fields: Mapping[str, T | tuple[T, ...]]) -> dict[str, T]:
    """The fields by their names in a graph: each tensor of a tuple becomes a field."""
    flat: dict[str, T] = {}
    for name, value in fields.items():
        if isinstance(value, tuple):
            flat |= {flat_name(name, index): item for index, item in enumerate(value)}
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, T]) -> dict[str, T | tuple[T, ...]]:
    """The fields of tensors by their names in a graph: `residual_0`, `residual_1` ... become the tuple `residuals`."""
    fields: dict[str, T | tuple[T, ...]] = {}
    for name, value in flat.items():
        stem, _, index = name.rpartition("_")
        if not index.isdigit():
            fields[name] = value
        elif index == "0":
            fields[f"{stem}s"] = tuple(flat[flat_name(f"{stem}s", place)] for place in range(_count(stem, flat)))
    return fields


def _count(stem: str, flat: Mapping[str, T]) -> int:
    return next(count for count in range(len(flat) + 1) if f"{stem}_{count}" not in flat)
