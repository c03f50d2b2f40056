"""A plan on the GPU: its weights, and its calls."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runtime.artifacts.plan import RUNTIME_CACHE_FILE, Plan
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.call_graphs import CallGraphs
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.messages import MESSAGES
from runtime.engines.tensorrt.plan_context import PlanContext
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.plan_weights import PlanWeights
from runtime.engines.tensorrt.rtx_kernels import KernelCache, check_validity, configure_kernels


class LoadedPlan:
    """One thread at a time uses it, inside of a call of `stream`. `weights`: to be set before the first call."""

    def __init__(self, plan: Plan, stream: CallStream, device: torch.device, cuda_graphs: bool) -> None:
        """cuda_graphs: whether calls with the same shapes are replayed. Raises PlanError when it cannot be loaded."""
        self._engine = _load(plan)
        self.weights = PlanWeights(self._engine, stream)
        self._cache: KernelCache | None = None
        self._graphs: CallGraphs | None = None
        self._compiled: set[int] = set()  # hashes of the shapes that kernels were compiled for
        config = self._engine.create_runtime_config()
        # The memory for activations follows from the shapes of a call, not from the largest that the plan takes.
        config.set_execution_context_allocation_strategy(flavour.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if flavour.IS_RTX:
            self._cache = configure_kernels(config, plan.folder / RUNTIME_CACHE_FILE, cuda_graphs)
        elif cuda_graphs:
            self._graphs = CallGraphs(stream)
        context = self._engine.create_execution_context(config)
        if context is None:
            raise PlanError(f"{plan.folder}: no execution context: {MESSAGES.last_error}")
        self._context = PlanContext(context, plan, stream, device)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, new tensors that the stream will fill. `inputs`: all inputs, contiguous, on the GPU.

        Raises PlanError, also when an input has a shape that the plan does not take.
        """
        if self._graphs:
            return self._graphs.run(self._context, inputs, self.weights.refits)
        outputs = self._context.bind(inputs)
        self._context.execute()
        if self._cache:
            self._save_kernels(self._cache, inputs)
        return outputs

    def _save_kernels(self, cache: KernelCache, inputs: Mapping[str, torch.Tensor]) -> None:
        shapes = hash(tuple(value.shape for value in inputs.values()))
        if shapes not in self._compiled:
            self._compiled.add(shapes)
            cache.save()


def _load(plan: Plan) -> trt.ICudaEngine:
    runtime = flavour.trt.Runtime(MESSAGES)
    if flavour.IS_RTX:
        reason = check_validity(runtime, plan.plan)
        if reason is not None:
            raise PlanError(f"{plan.folder}: this machine cannot run the plan ({reason})")
    engine = runtime.deserialize_cuda_engine(plan.plan)
    if engine is None:
        raise PlanError(f"{plan.folder}: the plan cannot be loaded: {MESSAGES.last_error}")
    return engine
