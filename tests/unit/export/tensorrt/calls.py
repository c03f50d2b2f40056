"""The inputs and weights of a TensorRT engine's calls over the emulator."""

from __future__ import annotations

import torch

from runtime.checkpoints.checkpoint import Component
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import noise
from tests.unit.runtime.merging import Changes


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
