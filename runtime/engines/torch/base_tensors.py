"""The base weights of a component in memory: read from its files once for all architectures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.weights.read_base import read_base


class BaseTensors:
    """Parameters of one component, of one dtype and memory format, on one device, in the shapes of its files.

    Never altered. `load` adds the parameters that a further architecture needs.
    """

    def __init__(
        self, make_empty: Callable[[torch.Size], torch.Tensor], on_evict: Callable[[BaseTensors], None]
    ) -> None:
        self._make_empty, self._on_evict = make_empty, on_evict
        self._tensors: dict[str, torch.Tensor] = {}
        self._nbytes = 0

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        return self._tensors

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def load(self, component: Component, names: Collection[str], check_cancelled: Callable[[], None]) -> None:
        """Read the missing parameters of `names`, and copy them. Without copies, overwriting the mapped file would
        change the weights or end the process.

        Calls `check_cancelled` before every tensor. Raises its errors, and FileChangedError.
        """
        missing = set(names) - self._tensors.keys()
        if not missing:
            return
        loaded: dict[str, torch.Tensor] = {}
        for name, tensor in read_base(component, missing, check_cancelled):
            loaded[name] = self._make_empty(tensor.shape).copy_(tensor)
        self._tensors |= loaded  # added together: after a FileChangedError no tensor of the changed file remains
        self._nbytes += sum(tensor.nbytes for tensor in loaded.values())

    def evicted(self) -> None:
        self._on_evict(self)
