"""The execution context of a plan: it gets the shapes and addresses of a call's tensors, then runs."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runtime.artifacts.plan import Plan
from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.flavour import trt
from runtime.engines.tensorrt.messages import MESSAGES
from runtime.engines.tensorrt.plan_error import PlanError


class PlanContext:
    """One thread at a time uses it, inside of a call of `stream`. The memory for activations is its own."""

    def __init__(self, context: trt.IExecutionContext, plan: Plan, stream: CallStream, device: torch.device) -> None:
        self._context, self._stream, self._device = context, stream, device
        self._outputs = [tensor.name for tensor in plan.graph.outputs]
        self._shapes = plan.manifest.shapes
        self._current: tuple[tuple[int, ...], ...] = ()  # the shapes of the last call
        self._activations = torch.empty(1, dtype=torch.uint8, device=device)

    def bind(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, new float32 tensors, which `execute` will fill. `inputs`: all, contiguous, on the GPU.

        Other shapes than the last call's may move the memory for activations, so a graph captured before must not run.
        Raises PlanError when an input has a shape that the plan does not take.
        """
        shapes = tuple(tuple(value.shape) for value in inputs.values())
        if shapes != self._current:
            self._current = ()
            self._set_shapes(inputs)
            self._set_activations(self._context.update_device_memory_size_for_shapes())
            self._current = shapes
        for name, value in inputs.items():
            # An empty tensor has no address, and TensorRT wants one.
            self._context.set_tensor_address(name, value.data_ptr() or self._activations.data_ptr())
        return {name: self._output(name) for name in self._outputs}

    def execute(self) -> None:
        """Give what was bound to the stream. Raises PlanError."""
        if not self._context.execute_async_v3(self._stream.handle):
            raise PlanError(f"a call failed: {MESSAGES.last_error}")

    def _set_shapes(self, inputs: Mapping[str, torch.Tensor]) -> None:
        for name, value in inputs.items():
            if not self._context.set_input_shape(name, tuple(value.shape)):
                smallest, _, largest = self._shapes[name]
                raise PlanError(f"{name} is {list(value.shape)}; the plan takes {list(smallest)} to {list(largest)}")

    def _set_activations(self, nbytes: int) -> None:
        if nbytes > self._activations.nbytes:
            self._activations = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        self._context.set_device_memory(self._activations.data_ptr(), self._activations.nbytes)

    def _output(self, name: str) -> torch.Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        output = torch.empty(shape, dtype=torch.float32, device=self._device)
        self._context.set_tensor_address(name, output.data_ptr())
        return output
