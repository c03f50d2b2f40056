"""The Engine protocol: what the stages know of torch, OpenVINO and TensorRT alike.

An engine is made once for an architecture, without weights. `bind` makes a weight set ready for it: slow, on any one
thread. `run` calls the compiled network for some rows, each with its own binding: on any one thread, which may be
another one.

A row is one input of the network without a batch axis, and its outputs have none either: the engine stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import torch

from runtime.weights.weight_set import WeightSet

Field = torch.Tensor | tuple[torch.Tensor, ...] | None
Inputs = Mapping[str, Field]
Outputs = Mapping[str, torch.Tensor | tuple[torch.Tensor, ...]]


class WeightsError(ValueError):
    """A component's tensors do not fit its configuration; the message lists them and is fit for the client."""


class Binding(Protocol):
    """A weight set that is ready for one engine. It stays ready until `release`."""

    def release(self) -> None:
        """End this use; the engine may then evict the weights. To be called once."""


class Engine(Protocol):
    """Runs one architecture."""

    @property
    def name(self) -> str:
        """`torch`, `openvino`, `tensorrt`."""

    @property
    def precision(self) -> str:
        """The precision in force: `float32`, `bfloat16`, `float16`."""

    @property
    def calls_per_turn(self) -> int:
        """Calls of one batch key before another key's turn: 1 where a change of weights costs nothing."""

    def bind(self, weights: WeightSet, check_cancelled: Callable[[], None]) -> Binding:
        """Make a weight set ready.

        Raises WeightsError when the weights do not fit the architecture, what reading them raises, and what
        `check_cancelled` raises, which is called before every tensor.
        """

    def batch_key(self, binding: Binding, inputs: Inputs) -> Hashable:
        """Rows with equal keys may share a call."""

    def run(self, rows: Sequence[tuple[Binding, Inputs]]) -> list[Outputs]:
        """The outputs of each row, in the order of `rows`, which have one batch key.

        Inputs and outputs are float32 (token ids int64), on any device; `runtime/networks` documents their names.
        """


def never_cancelled() -> None:
    """A `check_cancelled` of work that nobody can cancel."""
