"""Selects the engine of an architecture, and owns the weights cache that all engines of a process share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from importlib.util import find_spec

import torch

from lorikeet.schema import EngineReceipt
from runtime.artifacts.artifact import ArtifactError
from runtime.artifacts.graph_call import GraphCall
from runtime.artifacts.plan import has_plans
from runtime.engines.ask import Bound
from runtime.engines.compiled.graphs import read_graphs
from runtime.engines.engine import CallSizes, Engine, SizedEngine, SizesError, WeightsError
from runtime.engines.lru_budget import LruBudget, Resident
from runtime.engines.openvino.compiled_cache import CompiledCache
from runtime.engines.openvino.compiled_files import CompiledFiles
from runtime.engines.placement import Placement, pin_threads, place, set_convolutions
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.torch.cuda_graphs import CudaGraphs
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import Architecture, NetworkKind
from runtime.networks.build import import_network
from runtime.settings import GIB, Settings

log = logging.getLogger("lorikeet")

# More architectures than a server needs. Without a limit, requests could fill the memory with networks.
_MAX_ENGINES = 16
_EVERY_STEP: set[NetworkKind] = {"unet", "controlnet"}  # the networks that a request calls in every step
_WEIGHTS_BYTES = 8 * GIB  # on a CPU, whose memory others use too
# What keeps an exported graph from being used. TensorRT may not be installed.
_UNUSABLE = (ArtifactError, PlanError, ImportError)
_LATENT_CHANNELS = 4  # a UNet's input channels without IC-Light
_OTHER_SIZES = "other sizes need another plan (make export with --profiles) or LORIKEET_ENGINE=auto"


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
        budget: LruBudget[Resident] = LruBudget(_weights_bytes(settings, self.placement.device))
        self.weights = WeightsCache(budget, MergeThreads(threads, begin))
        self._compiled = CompiledCache(budget)
        self._files = CompiledFiles(settings.compiled_folder, settings.compiled_bytes)
        self._settings = settings
        if settings.engine == "tensorrt" and kind in _EVERY_STEP:
            self._check_block_rows()
        self._engines: dict[Hashable, Engine] = {}  # least recently requested first

    def _check_block_rows(self) -> None:
        """Raises SettingsError. With the setting `auto`, the torch engine serves what no plan takes."""
        if not has_plans(self._settings.artifacts_folder):
            return
        with suppress(ImportError):  # TensorRT is missing: each request's error says so
            from runtime.engines.tensorrt.make_engine import check_block_rows

            check_block_rows(self._settings)

    def of(self, architecture: Architecture, calls: Collection[GraphCall] = ()) -> Engine:
        """The engine of an architecture: OpenVINO on a CPU and TensorRT on a GPU if it was exported, else torch.

        calls: the sizes of its calls. If the exported engine does not take them, torch serves them, or with the setting
        that asks for the engine SizesError is raised.

        Raises WeightsError when no network can be built from its configuration, or when the setting asks for an engine
        that cannot serve it.
        """
        engine = self._kept(architecture, lambda: self._make(architecture))
        try:
            if isinstance(engine, SizedEngine):
                for call in calls:
                    engine.check_sizes(call)
        except SizesError as error:
            if self._settings.engine != "auto":
                raise SizesError(error.axis, f"{error}; {_OTHER_SIZES}") from error
            reason = error
            return self._kept((architecture, "other sizes"), lambda: self._make_substitute(architecture, reason))
        return engine

    def _kept(self, key: Hashable, make: Callable[[], Engine]) -> Engine:
        """The engine of this key, which `make` makes at its first request."""
        engine = self._engines.pop(key, None) or make()
        self._engines[key] = engine
        if len(self._engines) > _MAX_ENGINES:
            del self._engines[next(iter(self._engines))]
        return engine

    def _make(self, architecture: Architecture) -> Engine:
        return self._exported(architecture) or self._make_torch(architecture)

    def _make_substitute(self, architecture: Architecture, reason: SizesError) -> Engine:
        log.warning("a request has %s; the torch engine serves requests of such sizes", reason)
        return self._make_torch(architecture)

    def _make_torch(self, architecture: Architecture) -> Engine:
        graphs = CudaGraphs() if self._replays(architecture) else None
        return TorchEngine(architecture, self.placement, self.weights, graphs)

    def _replays(self, architecture: Architecture) -> bool:
        """Whether calls become CUDA graphs, which is not worth the memory for networks that a request calls once."""
        on_gpu = self.placement.device.type == "cuda"
        return on_gpu and self._settings.cuda_graphs and architecture.kind in _EVERY_STEP

    def _exported(self, architecture: Architecture) -> Engine | None:
        """The engine of an exported graph. None: the torch engine serves the architecture."""
        wanted = self._settings.engine
        fitting = "openvino" if self.placement.device.type == "cpu" else "tensorrt"
        if wanted not in ("auto", fitting):
            return None
        make = self._openvino if fitting == "openvino" else self._tensorrt
        try:
            engine = make(architecture)
        except _UNUSABLE as error:
            if wanted == fitting:
                raise WeightsError(str(error)) from error
            log.warning("%s; the torch engine serves it until the server is started again", error)
            return None
        if engine is None and wanted == fitting:
            raise WeightsError(f"its {architecture.kind} was not exported: run `{_export(architecture, fitting)}`")
        return engine

    def _openvino(self, architecture: Architecture) -> Engine | None:
        graphs = read_graphs(self._settings.artifacts_folder, architecture)
        if graphs is None:
            return None
        if find_spec("openvino") is None:
            raise ImportError("the package openvino is not installed (it is in the extra `export`)")
        # A server without graphs does not need openvino.
        from runtime.engines.openvino.compiler import Compiler
        from runtime.engines.openvino.openvino_engine import OpenVinoEngine

        dtype = torch.float32 if self.placement.upcasts else self.placement.dtype
        compiler = Compiler(dtype, torch.get_num_threads())
        return OpenVinoEngine(architecture, graphs, compiler, self._files, self._compiled)

    def _tensorrt(self, architecture: Architecture) -> Engine | None:
        if not has_plans(self._settings.artifacts_folder):
            return None
        from runtime.engines.tensorrt.make_engine import make_tensorrt  # a server without plans does not need it

        low_ranks, cuda_graphs = self._compiled.low_rank, self._replays(architecture)
        return make_tensorrt(architecture, self._settings, self.placement, self.weights, low_ranks, cuda_graphs)

    def sizes(self, sizes: CallSizes, scale: int) -> CallSizes | None:
        """These sizes of calls if the settings name them; else None, which is any size. `scale`: pixels of a latent."""
        named = f"{scale * sizes.width}x{scale * sizes.height}" in self._settings.static_shapes
        return sizes if named else None

    def receipt(self, bound: Bound) -> EngineReceipt:
        """Everything that determines the arithmetic of an engine of this stage."""
        on_cpu = self.placement.device.type == "cpu"
        return EngineReceipt(
            name=bound.engine.name,
            precision=bound.binding.precision,
            block_rows=bound.block_rows,
            static_shapes=bound.binding.has_fixed_sizes,
            threads=torch.get_num_threads() if on_cpu else 0,
            device=torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(),
        )


def _weights_bytes(settings: Settings, device: torch.device) -> int:
    """The memory for weights of a stage."""
    if settings.weights_bytes is not None:
        return int(settings.weights_bytes)
    return torch.cuda.mem_get_info(device)[1] // 2 if device.type == "cuda" else _WEIGHTS_BYTES


def _export(architecture: Architecture, engine: str) -> str:
    """The command that exports the architecture."""
    command = f"make export MODEL=... ENGINE={engine}"
    channels = architecture.options.get("in_channels") if architecture.kind == "unet" else None
    # IC-Light's, which no checkpoint has.
    return command if channels in (None, _LATENT_CHANNELS) else f'{command} ARGS="--in-channels {channels}"'
