"""Selects the engine of an architecture, and owns the weights cache that all engines of a process share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lorikeet.schema import EngineReceipt
from runtime.engines.engine import Engine
from runtime.engines.placement import Placement, pin_threads, place, set_convolutions
from runtime.engines.torch.cuda_graphs import CudaGraphs
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import Architecture, NetworkKind
from runtime.networks.build import import_network
from runtime.settings import Settings

# More architectures than a server needs. Without a limit, requests could fill the memory with networks.
_MAX_ENGINES = 16
_EVERY_STEP: set[NetworkKind] = {"unet", "controlnet"}  # the networks that a request calls in every step


class Engines:
    """The engines of a stage, one for each architecture, made at its first request. Their weights share a budget.

    `kind`: the kind of network that the stage runs. Its libraries are imported here, before the stage reports ready.
    `begin`: each merge thread calls it first. `weights`: the cache of all weights.
    """

    def __init__(self, settings: Settings, kind: NetworkKind, begin: Callable[[], None] = lambda: None) -> None:
        import_network(kind)
        pin_threads(settings)
        self.placement: Placement = place(settings)
        set_convolutions(self.placement)
        threads = torch.get_num_threads() if self.placement.device.type == "cpu" else 1
        self.weights = WeightsCache(int(settings.weights_bytes), MergeThreads(threads, begin))
        self._engines: dict[Architecture, Engine] = {}  # least recently requested first

    def of(self, architecture: Architecture) -> Engine:
        """The engine of an architecture: always the torch engine, which needs no export.

        Raises WeightsError when no network can be built from its configuration.
        """
        engine = self._engines.pop(architecture, None) or self._make(architecture)
        self._engines[architecture] = engine
        if len(self._engines) > _MAX_ENGINES:
            del self._engines[next(iter(self._engines))]
        return engine

    def _make(self, architecture: Architecture) -> Engine:
        replays = self.placement.device.type == "cuda" and architecture.kind in _EVERY_STEP
        return TorchEngine(architecture, self.placement, self.weights, CudaGraphs() if replays else None)

    def receipt(self, engine: Engine, block_rows: int) -> EngineReceipt:
        """Everything that determines the arithmetic of an engine of this stage."""
        on_cpu = self.placement.device.type == "cpu"
        return EngineReceipt(
            name=engine.name,
            precision=engine.precision,
            block_rows=block_rows,
            static_shapes=engine.has_static_shapes,
            threads=torch.get_num_threads() if on_cpu else 0,
            device=torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(),
        )
