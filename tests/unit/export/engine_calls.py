"""Calls of an engine, and what they return compared with another engine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from runtime.engines.engine import CallSizes, Inputs, never_cancelled
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import batched, rows_of

TOLERANCE = 5e-5  # of the standard deviation


def run(engine: Any, weights: WeightSet, batch: Inputs, sizes: CallSizes | None = None) -> Mapping[str, Any]:
    """One call with these weights, which are released; inputs and outputs have a batch axis."""
    binding = engine.bind(weights, never_cancelled, sizes)
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
