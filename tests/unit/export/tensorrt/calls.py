"""Calls of a TensorRT engine over the emulator, and weights that they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import Inputs, never_cancelled
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import batched, noise, rows_of
from tests.unit.runtime.merging import Changes

TOLERANCE = 5e-5  # of the standard deviation


def run(engine: Any, weights: WeightSet, batch: Inputs) -> dict[str, Any]:
    """One call with these weights, which are released."""
    binding = engine.bind(weights, never_cancelled)
    try:
        return batched(engine.run([(binding, row) for row in rows_of(batch)]))
    finally:
        binding.release()


def assert_near(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float = TOLERANCE) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        pairs = zip(found[name], value, strict=True) if isinstance(value, tuple) else [(found[name], value)]
        for one, other in pairs:
            assert one.dtype == torch.float32
            assert (one - other).abs().max() < tolerance * other.std(), name


def text_batch() -> dict[str, torch.Tensor]:
    return {"ids": torch.randint(200, (2, 77), generator=torch.Generator().manual_seed(0))}


def linear_lora(component: Component, seed: int, names: str = ".weight", rank: int = 4) -> WeightSet:
    """A LoRA of the linear layers whose parameters have `names` in their names."""
    changes = {
        name: LowRank(noise(rank, shape[1], seed=seed + index), noise(shape[0], rank, seed=seed - index), 0.02)
        for index, (name, shape) in enumerate(component.shapes.items())
        if len(shape) == 2 and name.endswith(".weight") and "embedding" not in name and names in name
    }
    assert changes
    return WeightSet(component, (Changes(f"{seed}:{names}:{rank}", changes),))


def biases(component: Component, seed: int, names: str) -> WeightSet:
    """A change of biases, which must be merged."""
    changes = {
        name: LowRank(noise(1, 1, seed=seed), noise(shape[0], 1, seed=seed + 1), 0.2)
        for name, shape in component.shapes.items()
        if name.endswith(".bias") and names in name
    }
    assert changes
    return WeightSet(component, (Changes(f"bias {seed} {names}", changes),))
