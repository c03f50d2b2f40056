"""A plan on the GPU, and the context in which it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from runtime.artifacts.plan import RUNTIME_CACHE_FILE, Plan
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.kernel_cache import KernelCache
from runtime.engines.tensorrt.messages import MESSAGES
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.plan_weights import PlanWeights


class LoadedPlan:
    """One thread at a time uses it, inside of a call of `stream`. `weights`: to be set before the first call.

    outputs: names of the outputs, which are float32.
    """

    def __init__(self, plan: Plan, outputs: Sequence[str], stream: CallStream, device: torch.device) -> None:
        """Raises PlanError when the plan cannot be loaded."""
        self._engine = _load(plan)
        self.weights = PlanWeights(self._engine, stream)
        self._outputs, self._shapes = tuple(outputs), plan.manifest.shapes
        self._stream, self._device = stream, device
        config = self._engine.create_runtime_config()
        # The memory for activations follows from the shapes of a call, not from the largest that the plan takes.
        config.set_execution_context_allocation_strategy(flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache = _configure_kernels(config, plan) if flavour.IS_RTX else None
        self._context = self._engine.create_execution_context(config)
        self._current: tuple[tuple[int, ...], ...] = ()  # the shapes of the last call
        self._activations = torch.empty(1, dtype=torch.uint8, device=device)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, new tensors that the stream will fill. `inputs`: all inputs, contiguous, on the GPU.

        Raises PlanError, also when an input has a shape that the plan does not take.
        """
        for name, value in inputs.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                smallest, _, largest = self._shapes[name]
                raise PlanError(f"{name} is {list(value.shape)}; the plan takes {list(smallest)} to {list(largest)}")
            # An empty tensor has no address, and TensorRT wants one.
            self._context.set_tensor_address(name, value.data_ptr() or self._activations.data_ptr())
        shapes = tuple(tuple(value.shape) for value in inputs.values())
        is_new = shapes != self._current
        if is_new:
            self._set_activations(self._context.update_device_memory_size_for_shapes())
            self._current = shapes
        outputs = {name: self._output(name) for name in self._outputs}
        if not self._context.execute_async_v3(self._stream.handle):
            raise PlanError(f"a call failed: {MESSAGES.last_error}")
        if is_new and self._cache:
            self._cache.save()
        return outputs

    def _set_activations(self, nbytes: int) -> None:
        if nbytes > self._activations.nbytes:
            self._activations = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        self._context.set_device_memory(self._activations.data_ptr(), self._activations.nbytes)

    def _output(self, name: str) -> torch.Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        output = torch.empty(shape, dtype=torch.float32, device=self._device)
        self._context.set_tensor_address(name, output.data_ptr())
        return output


def _load(plan: Plan) -> trt.ICudaEngine:
    runtime = flavour.trt.Runtime(MESSAGES)
    if flavour.IS_RTX:
        validity, diagnostics = runtime.get_engine_validity(plan.plan)
        if validity not in (flavour.trt.EngineValidity.VALID, flavour.trt.EngineValidity.SUBOPTIMAL):
            raise PlanError(f"{plan.folder}: this machine cannot run the plan ({diagnostics})")
    engine = runtime.deserialize_cuda_engine(plan.plan)
    if engine is None:
        raise PlanError(f"{plan.folder}: the plan cannot be loaded: {MESSAGES.last_error}")
    return engine


def _configure_kernels(config: trt.IRuntimeConfig, plan: Plan) -> KernelCache:
    """TensorRT-RTX compiles kernels when it runs, keeps them in a file, and captures CUDA graphs itself."""
    config.cuda_graph_strategy = flavour.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    # A lazy kernel would replace another one at some later call, and change the bytes of a request.
    strategy = flavour.trt.DynamicShapesKernelSpecializationStrategy.EAGER
    config.dynamic_shapes_kernel_specialization_strategy = strategy
    return KernelCache(config, plan.folder / RUNTIME_CACHE_FILE)
