"""How TensorRT-RTX makes and launches kernels: it compiles them when it runs. TensorRT compiles them with the plan."""

from __future__ import annotations

import logging
from pathlib import Path

from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import trt

log = logging.getLogger("lorikeet")


class KernelCache:
    """The compiled kernels in a file: another start of the server does not compile them again.

    Attached to a runtime configuration before its context is made.
    """

    def __init__(self, config: trt.IRuntimeConfig, path: Path) -> None:
        self._cache, self._path = config.create_runtime_cache(), path
        # TensorRT-RTX refuses the file of another version or GPU, and starts with an empty cache.
        if path.is_file() and not self._cache.deserialize(path.read_bytes()):
            log.info("%s: other kernels than this machine's; they are compiled again", path)
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file, which is whole at any time. A folder that cannot be written is no error."""
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            part.write_bytes(memoryview(self._cache.serialize()))
            part.replace(self._path)
        except OSError as error:
            log.warning("%s: compiled kernels are not kept (%s)", self._path, error.strerror)


def configure_kernels(config: trt.IRuntimeConfig, path: Path, cuda_graphs: bool) -> KernelCache:
    """The cache is the file at `path`. cuda_graphs: TensorRT-RTX itself captures and replays each call."""
    strategies = flavour.trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategies.DISABLED
    # A lazy kernel would replace another one at some later call, and change the bytes of a request.
    strategy = flavour.trt.DynamicShapesKernelSpecializationStrategy.EAGER
    config.dynamic_shapes_kernel_specialization_strategy = strategy
    return KernelCache(config, path)


def check_validity(runtime: trt.Runtime, plan: bytes) -> str | None:
    """Why this machine cannot run the plan; None: it can. Loading a plan would not say why."""
    validity, diagnostics = runtime.get_engine_validity(plan)
    known = flavour.trt.EngineValidity
    return None if validity in (known.VALID, known.SUBOPTIMAL) else str(diagnostics)
