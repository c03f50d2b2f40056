"""Engines of the tiny networks, as a stage makes them."""

from __future__ import annotations

from typing import Any

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import GraphKind, Inputs, Outputs
from runtime.engines.placement import Placement
from runtime.engines.residency import Residency
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.tensor_pool import TensorPool
from runtime.engines.torch.torch_engine import TorchEngine, Weights
from runtime.networks.build import graph_of
from runtime.weights.weight_set import WeightSet

PLENTY = 1 << 30


def make_engine(
    kind: GraphKind,
    component: Component,
    dtype: torch.dtype = torch.float32,
    budget: int = PLENTY,
    upcasts: bool = False,
) -> tuple[TorchEngine, Residency[Weights]]:
    residency: Residency[Weights] = Residency(budget)
    placement = Placement(torch.device("cpu"), dtype, upcasts)
    return TorchEngine(graph_of(kind, component), placement, residency, TensorPool(), MergeThreads(2)), residency


def run(engine: TorchEngine, weights: WeightSet, inputs: Inputs) -> Outputs:
    """One call with these weights, which are let go of."""
    binding = engine.bind(weights)
    try:
        return engine.run(binding, inputs)
    finally:
        binding.release()


def predict(engine: TorchEngine, weights: WeightSet, inputs: Inputs) -> torch.Tensor:
    """A UNet's prediction."""
    prediction = run(engine, weights, inputs)["prediction"]
    assert isinstance(prediction, torch.Tensor)
    return prediction


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet_inputs(checkpoint_kind: str, rows: int = 2) -> dict[str, Any]:
    """What a UNet without extras takes, at the tiny checkpoints' widths."""
    inputs: dict[str, Any] = {
        "latent": noise(rows, 4, 8, 8, seed=1),
        "t": torch.linspace(801.0, 17.0, rows),
        "text": noise(rows, 77, 32 if checkpoint_kind == "sd" else 80, seed=2),
    }
    if checkpoint_kind == "sdxl":
        inputs |= {"pooled": noise(rows, 40, seed=3), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * rows)}
    return inputs
