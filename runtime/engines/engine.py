"""The Engine protocol: what the stages know of torch, OpenVINO and TensorRT alike.

An engine is made once for a graph (an architecture, no weights). `bind` makes a weight set ready for it, slowly, on
any one thread; `run` calls the graph with what was bound, on any one thread, which may be another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from runtime.weights.weight_set import WeightSet

GraphKind = Literal["unet", "vae_encoder", "vae_decoder", "text_encoder"]
Inputs = Mapping[str, torch.Tensor | tuple[torch.Tensor, ...] | None]
Outputs = Mapping[str, torch.Tensor | tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Graph:
    """An architecture: what is computed (`kind`) and the configuration (canonical JSON) that fixes it.

    `networks.build.graph_of` makes it, so that equal architectures are equal graphs."""

    kind: GraphKind
    config: str

    @property
    def options(self) -> dict[str, Any]:
        """The configuration, as diffusers and transformers take it."""
        options: dict[str, Any] = json.loads(self.config)
        return options

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.kind}:{self.config}".encode()).hexdigest()


class Binding(Protocol):
    """A weight set made ready for one engine. It stays ready until released."""

    @property
    def key(self) -> str:
        """Equal for bindings of equal weights to the same graph: their rows may share a call."""

    def release(self) -> None:
        """Say that this user is done with it; the engine may then drop it for room."""


class Engine(Protocol):
    """Runs one graph."""

    @property
    def name(self) -> str:
        """`torch`, `openvino`, `tensorrt`."""

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16`, `float16`."""

    def bind(self, weights: WeightSet, stop: Callable[[], None] = lambda: None) -> Binding:
        """Make the weights ready. Raises WeightsError when they do not fit the graph, and whatever `stop` raises,
        which is asked before every tensor."""

    def run(self, binding: Binding, inputs: Inputs) -> Outputs:
        """Call the graph. Inputs and outputs are float32 (ids int64) on any device; see `networks` for their names."""


class WeightsError(ValueError):
    """A component's tensors do not fit its configuration; the message lists them and is fit for the client."""
