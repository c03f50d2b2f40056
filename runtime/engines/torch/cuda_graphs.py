"""CUDA graphs: all kernels of a network call are launched at once.

A UNet has more than a thousand kernels. On a fast GPU, launching them one by one takes longer than running them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from runtime.engines import stacking
from runtime.engines.engine import Field, Inputs, Outputs

_MAX_GRAPHS = 16  # each has a few megabytes of its own; its activations share memory with the others'
_WARM = None  # the shapes had one call, which made what a capture cannot make: library handles and workspaces


@dataclass(frozen=True)
class _Graph:
    """A captured call, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Field]
    outputs: Outputs


class CallGraphs(Protocol):
    """Records and replays calls of a network whose weights stay at their addresses until `clear`."""

    def call(self, network: Callable[..., Outputs], batch: Mapping[str, Field]) -> Outputs:
        """The network's outputs, as new tensors, for inputs on its device."""

    def clear(self) -> None:
        """Forget all calls: the weights are no longer at their addresses."""


class CudaGraphs:
    """One graph for each set of input shapes, captured at the second call with them. The least recently used ones are
    dropped.

    Replays give the same bytes as calls without a graph.
    """

    def __init__(self) -> None:
        self._graphs: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    def call(self, network: Callable[..., Outputs], batch: Mapping[str, Field]) -> Outputs:
        key = stacking.shapes(batch)
        if key not in self._graphs:
            self._add(key, _WARM)
            return network(**batch)
        graph = self._graphs[key] or self._capture(network, batch)
        self._add(key, graph)
        for name, value in graph.inputs.items():
            _copy(value, batch[name])
        graph.graph.replay()
        return {name: _cloned(value) for name, value in graph.outputs.items()}

    def clear(self) -> None:
        self._graphs.clear()

    def _add(self, key: Hashable, graph: _Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        if len(self._graphs) > _MAX_GRAPHS:
            self._graphs.popitem(last=False)

    def _capture(self, network: Callable[..., Outputs], batch: Inputs) -> _Graph:
        graph = torch.cuda.CUDAGraph()
        inputs = {name: _cloned(value) for name, value in batch.items() if value is not None}
        # Other threads may use the GPU during the capture: the loader copies and merges weights.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = network(**inputs)
        return _Graph(graph, dict(inputs), outputs)


def _copy(to: Field, value: Field) -> None:
    if isinstance(to, tuple) and isinstance(value, tuple):
        for one, other in zip(to, value, strict=True):
            one.copy_(other)
    elif isinstance(to, torch.Tensor) and isinstance(value, torch.Tensor):
        to.copy_(value)


def _cloned(value: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    return tuple(item.clone() for item in value) if isinstance(value, tuple) else value.clone()
