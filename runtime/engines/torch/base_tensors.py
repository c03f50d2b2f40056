"""The base weights of a component in memory: read from its files once, for every architecture that uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.weights.read_base import read_base


class BaseTensors:
    """Parameters of one component, of one dtype and memory format, on one device, in the shapes of its files.

    Never altered. It grows when an architecture needs a parameter that no other one needed.
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
        """Read those of the parameters that are not there yet. All are copied: a mapped file that somebody overwrites
        would change the weights, or end the process.

        Raises FileChangedError, and what `check_cancelled` raises, which is called before every tensor.
        """
        loaded: dict[str, torch.Tensor] = {}
        for name, tensor in read_base(component, set(names) - self._tensors.keys(), check_cancelled):
            loaded[name] = self._make_empty(tensor.shape).copy_(tensor)
        self._tensors |= loaded  # all or nothing: a file that changed meanwhile leaves no tensor behind
        self._nbytes += sum(tensor.nbytes for tensor in loaded.values())

    def evicted(self) -> None:
        self._on_evict(self)
