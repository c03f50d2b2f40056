"""Stands for the runtime of TensorRT-RTX, or of TensorRT, on a machine without a GPU.

A plan is an ONNX graph, which OpenVINO runs. Weights and tensors are read from, and written to, the addresses that the
engine gives, at the time of the call. What TensorRT leaves undefined is an assertion here.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import tensorrt_rtx as trt

from runtime.artifacts.plan_manifest import Shape
from runtime.engines.openvino.core import core

Array = npt.NDArray[Any]
_DTYPES: dict[int, tuple[np.dtype[Any], trt.DataType]] = {
    onnx.TensorProto.FLOAT: (np.dtype(np.float32), trt.DataType.FLOAT),
    onnx.TensorProto.FLOAT16: (np.dtype(np.float16), trt.DataType.HALF),
    onnx.TensorProto.BFLOAT16: (np.dtype(ml_dtypes.bfloat16), trt.DataType.BF16),
    onnx.TensorProto.INT64: (np.dtype(np.int64), trt.DataType.INT64),
}


def emulated_plan(model: onnx.ModelProto, shapes: Mapping[str, tuple[Shape, Shape, Shape]]) -> bytes:
    graph: bytes = model.SerializeToString(deterministic=True)
    return json.dumps(shapes).encode() + b"\n" + graph


class HostStream:
    """The stream of emulated calls, which end when they return. `recorded`: the calls of the capture that goes on."""

    def __init__(self) -> None:
        self.handle = next(_HANDLES)
        self.recorded: list[Callable[[], None]] | None = None
        self._is_in_call = False
        _STREAMS[self.handle] = self

    @contextmanager
    def call(self) -> Iterator[None]:
        self._is_in_call = True
        yield
        self._is_in_call = False

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        assert self._is_in_call and self.recorded is None
        recorded = self.recorded = []
        try:
            work()
        finally:
            self.recorded = None
        return partial(_run_all, recorded)


_HANDLES = count(77)
_STREAMS: WeakValueDictionary[int, HostStream] = WeakValueDictionary()


def _run_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


class Emulator:
    """The module. `engines`: all engines that were loaded. `refits`: the names of each refit. `failures`: how many of
    the next refits fail. `is_valid`: whether plans are for this machine. `is_rtx`: whether it is TensorRT-RTX.
    `can_capture`: whether calls can be captured. `has_memory`: whether there is memory for another context."""

    def __init__(self, is_rtx: bool) -> None:
        self.is_rtx = is_rtx
        self.engines: list[Engine] = []
        self.refits: list[set[str]] = []
        self.failures = 0
        self.is_valid = self.can_capture = self.has_memory = True

    def __getattr__(self, name: str) -> Any:
        """Enumerations are the module's own."""
        return getattr(trt, name)

    def Runtime(self, logger: trt.ILogger) -> Runtime:  # noqa: N802 (TensorRT's name)
        self.logger = logger
        return RtxRuntime(self) if self.is_rtx else Runtime(self)

    def Refitter(self, engine: Engine, logger: trt.ILogger) -> Refitter:  # noqa: N802
        return Refitter(self, engine)

    def Weights(self, dtype: trt.DataType, address: int, count: int) -> tuple[trt.DataType, int, int]:  # noqa: N802
        return dtype, address, count


class Runtime:
    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if not plan.startswith(b"{"):
            return None
        self._emulator.engines.append(Engine(plan, self._emulator))
        return self._emulator.engines[-1]


class RtxRuntime(Runtime):
    def get_engine_validity(self, plan: bytes) -> tuple[Any, str]:
        found = trt.EngineValidity.__members__["VALID" if self._emulator.is_valid else "INVALID"]
        return found, "UNSUPPORTED_CC"


class Engine:
    """Weights that were never refitted are NaN. `replays`: how many of the calls a graph made."""

    def __init__(self, plan: bytes, emulator: Emulator) -> None:
        self.emulator = emulator
        header, _, graph = plan.partition(b"\n")
        self.shapes = {name: [tuple(shape) for shape in found] for name, found in json.loads(header).items()}
        model, self.compiled = _compile(graph)
        self.inputs = {value.name: _DTYPES[value.type.tensor_type.elem_type][0] for value in model.graph.input}
        self.kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.weights = {
            tensor.name: np.full(tensor.dims, np.nan, _DTYPES[tensor.data_type][0])
            for tensor in model.graph.initializer
        }
        self._call_first()
        self.is_complete = False
        self.calls = self.replays = 0
        self.config = RtxRuntimeConfig() if emulator.is_rtx else RuntimeConfig()

    def _call_first(self) -> None:
        """A call of the largest sizes: see `runtime/engines/openvino/first_call.py`."""
        inputs = {name: np.zeros(self.shapes[name][2], dtype) for name, dtype in self.inputs.items()}
        self.compiled({**inputs, **self.weights})

    def create_runtime_config(self) -> Any:
        return self.config

    def create_execution_context(self, config: RuntimeConfig) -> Context | None:
        assert config.strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.emulator.has_memory:
            self.emulator.logger.log(trt.ILogger.ERROR, "no memory for a context")
            return None
        return Context(self)


class RuntimeConfig:
    """What the engine sets. TensorRT's has no other attributes."""

    __slots__ = ("strategy",)

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class RtxRuntimeConfig(RuntimeConfig):
    cache: RuntimeCache
    cuda_graph_strategy: trt.CudaGraphStrategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    content = b"kernels"
    read: bytes | None = None

    def deserialize(self, blob: bytes) -> bool:
        self.read = blob
        return blob == self.content

    def serialize(self) -> bytes:
        return self.content


class Refitter:
    """A convolution's kernel and bias are combined: one cannot be replaced without the other."""

    def __init__(self, emulator: Emulator, engine: Engine) -> None:
        self._emulator, self._engine = emulator, engine
        self._set: dict[str, tuple[int, int]] = {}

    def get_all_weights(self) -> list[str]:
        return list(self._engine.weights)

    def set_named_weights(self, name: str, weights: tuple[trt.DataType, int, int], location: Any) -> bool:
        dtype, address, count = weights
        assert location == trt.TensorLocation.DEVICE and address
        if self._engine.weights[name].size != count or _DTYPES[self._engine.kinds[name]][1] != dtype:
            return False
        self._set[name] = address, count
        return True

    def unset_named_weights(self, weights_name: str) -> bool:
        return self._set.pop(weights_name, None) is not None

    def get_missing_weights(self) -> list[str]:
        weights = self._engine.weights
        if not self._engine.is_complete:
            return [name for name in weights if name not in self._set]
        kernels = [name for name in self._set if weights[name].ndim == 4]
        partners = {name.replace(".weight", ".bias") for name in kernels}
        return [name for name in weights if name in partners and name not in self._set]

    def refit_cuda_engine_async(self, stream_handle: int) -> bool:
        assert stream_handle in _STREAMS and not self.get_missing_weights()
        self._emulator.refits.append(set(self._set))
        fails = self._emulator.failures > 0
        self._emulator.failures -= fails
        for place, (name, (address, _)) in enumerate(self._set.items()):
            if not (fails and place % 2):
                self._engine.weights[name] = _read(address, self._engine.weights[name])
        self._engine.is_complete = True
        return not fails


class Context:
    """A captured call keeps the shapes, addresses, memory and weights that it was captured with.

    It also uses what the context prepared for the shapes, which other shapes replace.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._memory = self._size = 0
        self._is_prepared = False  # the last call had the current shapes
        self._changes = 0  # of the shapes

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        smallest, _, largest = self._engine.shapes[name]
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            return False
        if self._shapes.get(name) != shape:
            self._is_prepared = False
            self._changes += 1
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory, f"{name} has no address"
        self._addresses[name] = memory
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._shapes.keys() == self._engine.inputs.keys()
        return self._needed()

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory
        self._memory, self._size = memory, size

    def get_tensor_shape(self, name: str) -> Shape:
        inputs = {name: np.zeros(shape, self._engine.inputs[name]) for name, shape in self._shapes.items()}
        return tuple(self._run(inputs, self._engine.weights)[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._size >= self._needed()
        recorded = _STREAMS[stream_handle].recorded
        if recorded is None:
            self._call(self._shapes, self._addresses, self._engine.weights)
            self._is_prepared = True
            return True
        assert self._is_prepared, "TensorRT prepares for other shapes in a call, which cannot be captured"
        state = dict(self._shapes), dict(self._addresses), dict(self._engine.weights)
        recorded.append(partial(self._replay, self._memory, self._changes, *state))
        return self._engine.emulator.can_capture

    def _replay(self, memory: int, changes: int, *state: Any) -> None:
        assert memory == self._memory, "the graph's memory was freed"
        assert changes == self._changes, "the context was prepared for other shapes after the capture"
        self._call(*state)
        self._engine.replays += 1

    def _call(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int], weights: Mapping[str, Array]) -> None:
        inputs = {
            name: _read(addresses[name], np.empty(shape, self._engine.inputs[name])) for name, shape in shapes.items()
        }
        for name, value in self._run(inputs, weights).items():
            assert value.dtype == np.float32
            ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
        self._engine.calls += 1

    def _needed(self) -> int:
        return 8 * sum(int(np.prod(shape)) for shape in self._shapes.values())

    def _run(self, inputs: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        found = self._engine.compiled({**inputs, **weights})
        return {output.get_any_name(): found[output] for output in self._engine.compiled.outputs}


def _read(address: int, like: Array) -> Array:
    """A copy of the numbers at an address."""
    return np.frombuffer(ctypes.string_at(address, like.nbytes), like.dtype).reshape(like.shape).copy()


@cache
def _compile(graph: bytes) -> tuple[onnx.ModelProto, Any]:
    """The graph, and it compiled with its weights as inputs."""
    model, opened = onnx.load_from_string(graph), onnx.load_from_string(graph)
    for tensor in opened.graph.initializer:
        opened.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del opened.graph.initializer[:]
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return model, core().compile_model(core().read_model(opened.SerializeToString()), "CPU", settings)
