"""Bound weights, and which of them some memory holds: only what differs is copied to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Contents:
    """Weights by parameter name: those of a base, of which `changed` are replaced. Equal keys name equal weights."""

    key: str
    base_key: str
    changed: frozenset[str]
    tensors: Mapping[str, torch.Tensor]


class HeldContents:
    """Which weights a memory holds. `names`: of all its parameters. One thread at a time uses it."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held: tuple[str, str, frozenset[str]] | None = None  # key, base_key and changed of the weights

    def replace(self, contents: Contents, copy: Callable[[Collection[str]], None]) -> None:
        """Make the memory hold `contents`. Calls `copy` with the names of the parameters that may differ.

        Over the same base, these are the ones that the last or these weights change. After an error of `copy`, the
        memory holds nothing known.
        """
        if self._held and self._held[0] == contents.key:
            return
        is_same_base = self._held is not None and self._held[1] == contents.base_key
        names = self._held[2] | contents.changed if self._held and is_same_base else self._names
        self._held = None
        copy(names)
        self._held = contents.key, contents.base_key, contents.changed
