"""The Engine protocol: the common interface of torch, OpenVINO and TensorRT for the stages.

An engine is made once for an architecture, without weights. `bind` prepares a weight set and is slow. `run` calls the
compiled network for some rows, each with its own binding. One thread at a time may call `bind`, and one thread at
a time may call `run`. Both may run at the same time.

A row has the inputs of the network for one item, without a batch axis. The engine stacks rows into a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from runtime.artifacts.graph_call import GraphCall
from runtime.weights.weight_set import WeightSet

Field = torch.Tensor | tuple[torch.Tensor, ...] | None
Inputs = Mapping[str, Field]
Outputs = Mapping[str, torch.Tensor | tuple[torch.Tensor, ...]]


class WeightsError(ValueError):
    """A component's tensors do not fit its configuration; the message lists them and is fit for the client."""


class SizesError(ValueError):
    """Calls of these sizes are outside of what an engine takes. The message is fit for the client.

    axis: the name of the axis whose size is refused, as in `export/axes.py`.
    """

    def __init__(self, axis: str, message: str) -> None:
        super().__init__(message)
        self.axis = axis


class CallSizes(NamedTuple):
    """The sizes of calls: how many rows, and the latents' height and width."""

    rows: int
    height: int
    width: int


class Binding(Protocol):
    """A weight set that is ready for one engine. It stays ready until `release`."""

    @property
    def precision(self) -> str:
        """The precision in force: `float32`, `bfloat16`, `float16`."""

    @property
    def has_fixed_sizes(self) -> bool:
        """Whether it was compiled for one size of its calls."""

    def release(self) -> None:
        """End this use; the engine may then evict the weights. Call it once."""


class Engine(Protocol):
    """Runs one architecture."""

    @property
    def name(self) -> str:
        """`torch`, `openvino`, `tensorrt`."""

    @property
    def device(self) -> torch.device:
        """Where the outputs are. Inputs on this device need no copy."""

    @property
    def calls_per_turn(self) -> int:
        """Calls of one batch key before another key's turn: 1 where a change of weights costs nothing."""

    def bind(self, weights: WeightSet, check_cancelled: Callable[[], None], sizes: CallSizes | None = None) -> Binding:
        """Make a weight set ready.

        `sizes`: the only sizes of its calls, whose rows have no optional fields. An engine may compile for them.

        Calls `check_cancelled` before every tensor. Raises WeightsError when the weights do not fit the architecture,
        and the errors of reading them and of `check_cancelled`.
        """

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        """Rows with equal keys may share a call."""

    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        """The outputs of each row, in the order of `rows`, which have one batch key.

        Inputs are float32 (token ids int64), on any device. Outputs are float32, on `device`; a GPU may still compute
        them when this returns. `runtime/networks` documents the names of both.
        """


@runtime_checkable
class SizedEngine(Engine, Protocol):
    """An engine that takes calls of some sizes only."""

    def check_sizes(self, call: GraphCall) -> None:
        """Raises SizesError when it does not take a call of these sizes, whose rank does not count."""


def never_cancelled() -> None:
    """A `check_cancelled` for work that cannot be cancelled."""
