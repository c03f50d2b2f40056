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
