"""OpenVINO engines over graphs that the tests export, and LoRAs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from export.make_artifact import make_artifact
from export.publish import exporting, publish
from runtime.artifacts.artifact import read_artifact
from runtime.artifacts.manifest import ArtifactKey, low_rank_modes
from runtime.checkpoints.checkpoint import Component
from runtime.engines.compiled.graphs import read_graphs
from runtime.engines.lru_budget import LruBudget
from runtime.engines.openvino.compiled_cache import CompiledCache
from runtime.engines.openvino.compiled_files import CompiledFiles
from runtime.engines.openvino.compiler import Compiler
from runtime.engines.openvino.openvino_engine import OpenVinoEngine
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.weights.change import LowRank
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import noise
from tests.unit.runtime.merging import Changes, Replacement

PLENTY = 1 << 30


def make_openvino(
    artifacts: Path,
    kind: NetworkKind,
    component: Component,
    budget: int = PLENTY,
    kept: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[OpenVinoEngine, LruBudget[Any]]:
    architecture = architecture_of(kind, component.config)
    with exporting(artifacts):
        for mode in low_rank_modes(kind):
            key = ArtifactKey(kind, architecture.digest, mode)
            if read_artifact(artifacts, key) is None:
                made = make_artifact(key, architecture, lambda _: None)
                publish(artifacts, made.artifact.manifest, made.compressed)
    graphs = read_graphs(artifacts, architecture)
    assert graphs is not None
    found: LruBudget[Any] = LruBudget(budget)
    files = CompiledFiles(artifacts / "compiled", kept)
    return OpenVinoEngine(architecture, graphs, Compiler(dtype, 1), files, CompiledCache(found)), found


def make_lora(component: Component, seed: int, rank: int, axes: tuple[int, ...]) -> WeightSet:
    """A LoRA of every layer of the component whose weight has one of these numbers of axes."""
    changes = {
        name: LowRank(noise(rank, *shape[1:], seed=seed + index), noise(shape[0], rank, seed=seed - index), 0.02)
        for index, (name, shape) in enumerate(component.shapes.items())
        if len(shape) in axes and name.endswith(".weight") and "embedding" not in name
    }
    return WeightSet(component, (Changes(f"{seed}:{rank}:{axes}", changes),))


def linear_lora(component: Component, seed: int, rank: int = 4) -> WeightSet:
    return make_lora(component, seed, rank, (2,))


def convolution_lora(component: Component, seed: int, rank: int = 4) -> WeightSet:
    """A LoRA of every linear layer and convolution of the component."""
    return make_lora(component, seed, rank, (2, 4))


def full_change(component: Component, seed: int) -> WeightSet:
    """Another bias of the last layer, which no graph takes as an input."""
    change = Replacement(noise(*component.shapes["conv_out.bias"], seed=seed))
    return WeightSet(component, (Changes(f"full {seed}", {"conv_out.bias": change}),))


def compiled_count(budget: LruBudget[Any]) -> int:
    return sum(key.startswith("compiled:") for key in budget._entries)
