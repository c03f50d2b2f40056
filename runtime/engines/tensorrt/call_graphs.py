"""The CUDA graph of a plan's calls: all kernels of a call are launched at once.

TensorRT does not capture calls itself; TensorRT-RTX does (see `rtx_kernels.py`). A graph contains the addresses that
the call used. NVIDIA does not say whether it reads refitted weights, so a refit drops the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.plan_error import PlanError

log = logging.getLogger("lorikeet")
# Of the tensors that a graph keeps, LoRAs of each row included. They are in no other budget.
_MAX_BYTES = 1 << 30
# Calls with the same shapes and weights before a capture. As many as the engine's `calls_per_turn`: where turns of
# other weights or shapes end earlier, a graph would be dropped before it is used.
CALLS_BEFORE = 4

Tensors = Mapping[str, torch.Tensor]


class PlanCall(Protocol):
    """How a plan runs: see `PlanContext`."""

    def bind(self, inputs: Tensors) -> dict[str, torch.Tensor]: ...
    def execute(self) -> None: ...


@dataclass(frozen=True)
class _Graph:
    """A captured call, and the tensors that it reads and writes."""

    replay: Callable[[], None]
    inputs: Tensors
    outputs: Tensors


class CallGraphs:
    """At most one graph at a time: of the shapes that the execution context has. One thread at a time uses it.

    A graph uses the state of its context, and other shapes replace that state. NVIDIA therefore advises a context for
    each graph. Here, a call with other shapes drops the graph instead: contexts need memory, and one whose call still
    runs must not be destroyed. Calls whose shapes alternate run without graphs.

    Replays give the same bytes as calls without a graph.
    """

    def __init__(self, stream: CallStream) -> None:
        self._stream = stream
        self._key: Hashable = None  # of the last call
        self._calls = 0  # with this key, without a graph
        self._nbytes = 0  # of the inputs and outputs of the last of these calls
        self._graph: _Graph | None = None
        self._can_capture = True

    def run(self, call: PlanCall, inputs: Tensors, state: Hashable) -> dict[str, torch.Tensor]:
        """The outputs, as new tensors. `state`: another value says that no graph captured before may run.

        All calls of the context go through here.
        """
        key = state, tuple(value.shape for value in inputs.values())
        if key != self._key:
            self._key, self._calls, self._graph = key, 0, None
        if self._graph:
            return _replayed(self._graph, inputs)
        if self._calls < CALLS_BEFORE or self._nbytes > _MAX_BYTES or not self._can_capture:
            self._calls += 1
            outputs = _direct(call, inputs)
            self._nbytes = sum(value.nbytes for tensors in (inputs, outputs) for value in tensors.values())
            return outputs
        return self._capture(call, inputs)

    def _capture(self, call: PlanCall, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Runs the call with tensors that stay, then captures it. TensorRT prepares for shapes in the calls before."""
        inputs = {name: value.clone() for name, value in inputs.items()}
        outputs = _direct(call, inputs)
        try:
            self._graph = _Graph(self._stream.capture(call.execute), inputs, outputs)
        except (PlanError, RuntimeError) as error:
            log.warning("the plan's calls run without CUDA graphs: %s", error)
            self._can_capture = False
        return _copied(outputs)


def _direct(call: PlanCall, inputs: Tensors) -> dict[str, torch.Tensor]:
    outputs = call.bind(inputs)
    call.execute()
    return outputs


def _replayed(graph: _Graph, inputs: Tensors) -> dict[str, torch.Tensor]:
    torch._foreach_copy_(list(graph.inputs.values()), [inputs[name] for name in graph.inputs])
    graph.replay()
    return _copied(graph.outputs)


def _copied(outputs: Tensors) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in outputs.items()}
