"""Compiles graphs with weights for the CPU, and keeps what it compiled on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openvino as ov
import torch

from runtime.engines.openvino.compiled_files import CompiledFiles
from runtime.engines.openvino.core import core

_log = logging.getLogger("lorikeet")
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_DEVICE = "CPU"
# Kernels that a model keeps for sizes of earlier calls. With 5000, OpenVINO's default, they take some 400 MB, and calls
# of new sizes are not faster (SD 1.5, 2 cores).
_KERNELS = 256


class Compiler:
    """`dtype`: of the arithmetic, if the processor has it; else the compiled models compute in float32."""

    def __init__(self, dtype: torch.dtype, threads: int) -> None:
        self.dtype = dtype
        self._settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        }

    def compile(self, model: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> Any:
        """An `ov.CompiledModel`. `shapes`: of all inputs, for one that takes no others; None: inputs of any sizes."""
        if shapes is not None:
            model.reshape({name: ov.PartialShape(list(shape)) for name, shape in shapes.items()})
        return core().compile_model(model, _DEVICE, self._settings)

    def read_or_compile(
        self,
        files: CompiledFiles,
        key: str,
        make_model: Callable[[], Any],
        shapes: Mapping[str, Sequence[int]] | None,
        nbytes: int,
    ) -> Any:
        """As `compile`. `key`: names the graph and the weights of `make_model`, which is called only to compile.

        `nbytes`: of the weights. A model that is too large to keep is not copied for it.
        """
        key = ":".join(map(str, (ov.get_version(), self._processor, self._settings, shapes, key)))
        if (content := files.read(key)) is not None:
            try:
                return core().import_model(content, _DEVICE, self._settings)
            except RuntimeError as error:
                _log.warning("OpenVINO cannot read a compiled model (%s); it is compiled again", error)
        compiled = self.compile(make_model(), shapes)
        if files.can_hold(nbytes):
            files.write(key, compiled.export_model().getvalue())
        return compiled

    @property
    def _processor(self) -> str:
        """Its name and what it can do."""
        return f"{core().get_property(_DEVICE, 'FULL_DEVICE_NAME')}:{torch.backends.cpu.get_cpu_capability()}"
