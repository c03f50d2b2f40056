"""Which engine runs a graph, and what all engines of a process share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from runtime.engines.engine import Engine, Graph, GraphKind
from runtime.engines.placement import Placement, pin_threads, place
from runtime.engines.residency import Residency
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.engines.torch.torch_engine import TorchEngine, Weights
from runtime.networks.build import network_class
from runtime.settings import Settings

# More architectures than anybody serves; without an end to it, requests could fill the memory with networks.
_KEPT = 16


class Engines:
    """The engines of a stage, one a graph, made when first asked for; the weights have a budget of their own.

    `kind`: what the stage runs; its libraries are imported here and now, so that a ready stage is ready.
    `begin`: what the threads that merge weights do first.
    """

    def __init__(self, settings: Settings, kind: GraphKind, begin: Callable[[], None] = lambda: None) -> None:
        network_class(kind)
        pin_threads(settings)
        self.placement: Placement = place(settings)
        self._residency: Residency[Weights] = Residency(int(settings.weights_bytes))
        self._tensor_pool = TensorPool()
        self._merge_threads = MergeThreads(torch.get_num_threads() if self.placement.device.type == "cpu" else 1, begin)
        self._engines: dict[Graph, Engine] = {}  # least recently asked for first

    def of(self, graph: Graph) -> Engine:
        """The engine of a graph: the best that has an artifact for it, which today is torch, as it needs none."""
        engine = self._engines.pop(graph, None) or TorchEngine(
            graph, self.placement, self._residency, self._tensor_pool, self._merge_threads
        )
        self._engines[graph] = engine
        if len(self._engines) > _KEPT:
            del self._engines[next(iter(self._engines))]
        return engine
