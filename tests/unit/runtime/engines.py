"""Engines of the tiny networks, as a stage makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import Inputs, Outputs, never_cancelled
from runtime.engines.lru_budget import LruBudget
from runtime.engines.placement import Placement
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.weights.weight_set import WeightSet

PLENTY = 1 << 30


def make_cache(budget: int = PLENTY) -> WeightsCache:
    return WeightsCache(LruBudget(budget), MergeThreads(2))


def make_engine(
    kind: NetworkKind,
    component: Component,
    dtype: torch.dtype = torch.float32,
    budget: int = PLENTY,
    upcasts: bool = False,
    cache: WeightsCache | None = None,
) -> tuple[TorchEngine, WeightsCache]:
    """An engine for the component's architecture, and the cache of its weights."""
    cache = cache or make_cache(budget)
    placement = Placement(torch.device("cpu"), dtype, upcasts)
    return TorchEngine(architecture_of(kind, component.config), placement, cache), cache


def run(engine: TorchEngine, weights: WeightSet, batch: Inputs) -> dict[str, Any]:
    """One call with these weights, which are released; inputs and outputs have a batch axis."""
    binding = engine.bind(weights, never_cancelled)
    try:
        return batched(engine.run([(binding, row) for row in rows_of(batch)]))
    finally:
        binding.release()


def predict(engine: TorchEngine, weights: WeightSet, batch: Inputs) -> torch.Tensor:
    """A UNet's predictions [rows, 4, h, w]."""
    prediction = run(engine, weights, batch)["prediction"]
    assert isinstance(prediction, torch.Tensor)
    return prediction


def rows_of(batch: Inputs) -> list[Inputs]:
    """The rows of inputs with a batch axis."""
    fields = {name: value for name, value in batch.items() if value is not None}
    first = next(iter(fields.values()))
    count = len(first[0] if isinstance(first, tuple) else first)
    return [
        {
            name: tuple(v[row] for v in value) if isinstance(value, tuple) else value[row]
            for name, value in fields.items()
        }
        for row in range(count)
    ]


def batched(rows: Sequence[Outputs]) -> dict[str, Any]:
    """The outputs of rows, with a batch axis."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], tuple):
            return tuple(torch.stack(items) for items in zip(*values, strict=True))
        return torch.stack(values)

    return {name: join([row[name] for row in rows]) for name in rows[0]}


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet_inputs(checkpoint_kind: str, rows: int = 2) -> dict[str, Any]:
    """What a UNet without extras takes, at the tiny checkpoints' widths, with a batch axis."""
    inputs: dict[str, Any] = {
        "latent": noise(rows, 4, 8, 8, seed=1),
        "t": torch.linspace(801.0, 17.0, rows),
        "text": noise(rows, 77, 32 if checkpoint_kind == "sd" else 80, seed=2),
    }
    if checkpoint_kind == "sdxl":
        inputs |= {"pooled": noise(rows, 40, seed=3), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * rows)}
    return inputs
