"""The weights of one architecture at fixed addresses, for CUDA graphs: they contain the addresses of what they read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from runtime.engines.contents import Contents, HeldContents


class FixedTensors:
    """Memory for the parameters of one architecture. One thread at a time uses it.

    `tensors`: the parameters by name, all on one device. `on_evict` is called with them when they are evicted.
    """

    def __init__(self, key: str, tensors: Mapping[str, torch.Tensor], on_evict: Callable[[FixedTensors], None]) -> None:
        self.key, self.tensors = key, tensors
        self._on_evict = on_evict
        self._held = HeldContents(tensors.keys())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def hold(self, contents: Contents) -> None:
        """Copy the weights in. Over the same base, only what the last or these weights change is copied."""

        def copy(names: Collection[str]) -> None:
            torch._foreach_copy_([self.tensors[name] for name in names], [contents.tensors[name] for name in names])

        self._held.replace(contents, copy)

    def evicted(self) -> None:
        self._on_evict(self)
