"""CUDA graphs of a plan's calls: all kernels of a call are launched at once.

TensorRT does not capture calls itself; TensorRT-RTX does (see `rtx_kernels.py`). A graph contains the addresses that
the call used. NVIDIA does not say whether it reads refitted weights, so a refit drops all graphs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from runtime.engines.tensorrt.call_stream import CallStream
from runtime.engines.tensorrt.plan_error import PlanError

log = logging.getLogger("lorikeet")
_MAX_GRAPHS = 16  # each has the inputs and outputs of its call
# Calls with the same shapes and weights before a capture. As many as the engine's `calls_per_turn`: where turns of
# other weights end earlier, a graph would be dropped before it is used.
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
    """One graph for each set of input shapes; the least recently used ones are dropped. One thread at a time uses it.

    Replays give the same bytes as calls without a graph.
    """

    def __init__(self, stream: CallStream) -> None:
        self._stream = stream
        self._calls: OrderedDict[Hashable, _Graph | int] = OrderedDict()  # by shapes; a number: calls so far
        self._state: Hashable = None
        self._can_capture = True

    def run(self, call: PlanCall, inputs: Tensors, state: Hashable) -> dict[str, torch.Tensor]:
        """The outputs, as new tensors. `state`: another value says that no graph captured before may run."""
        if state != self._state:
            self._calls.clear()
            self._state = state
        key = tuple(value.shape for value in inputs.values())
        found = self._calls.pop(key, 0)
        if isinstance(found, _Graph):
            self._keep(key, found)
            return _replayed(found, inputs)
        if found < CALLS_BEFORE or not self._can_capture:
            self._keep(key, found + 1)
            return _direct(call, inputs)
        return self._capture(key, call, inputs)

    def _keep(self, key: Hashable, found: _Graph | int) -> None:
        self._calls[key] = found
        if len(self._calls) > _MAX_GRAPHS:
            self._calls.popitem(last=False)

    def _capture(self, key: Hashable, call: PlanCall, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Runs the call with tensors that stay, then captures it. TensorRT prepares for shapes in the first run."""
        inputs = {name: value.clone() for name, value in inputs.items()}
        outputs = _direct(call, inputs)
        try:
            self._keep(key, _Graph(self._stream.capture(call.execute), inputs, outputs))
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
