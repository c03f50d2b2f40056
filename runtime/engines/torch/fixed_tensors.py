"""The weights of one architecture at fixed addresses, for CUDA graphs: they contain the addresses of what they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Contents:
    """Weights by parameter name: those of a base, of which `changed` are replaced. Equal keys name equal weights."""

    key: str
    base_key: str
    changed: frozenset[str]
    tensors: Mapping[str, torch.Tensor]


class FixedTensors:
    """Memory for the parameters of one architecture. One thread at a time uses it.

    `tensors`: the parameters by name, all on one device. `on_evict` is called with them when they are evicted.
    """

    def __init__(self, key: str, tensors: Mapping[str, torch.Tensor], on_evict: Callable[[FixedTensors], None]) -> None:
        self.key, self.tensors = key, tensors
        self._on_evict = on_evict
        self._held: tuple[str, str, frozenset[str]] | None = None  # key, base_key and changed of the weights in it

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def hold(self, contents: Contents) -> None:
        """Copy the weights in. Over the same base, only what the last or these weights change is copied."""
        if self._held and self._held[0] == contents.key:
            return
        is_same_base = self._held is not None and self._held[1] == contents.base_key
        names = self._held[2] | contents.changed if self._held and is_same_base else self.tensors.keys()
        self._held = None  # after an error, the memory has parts of both
        torch._foreach_copy_([self.tensors[name] for name in names], [contents.tensors[name] for name in names])
        self._held = contents.key, contents.base_key, contents.changed

    def evicted(self) -> None:
        self._on_evict(self)
