"""What the tests of TensorRT share: the emulator in the place of TensorRT-RTX or TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.artifacts.plan_manifest import Precision
from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.lru_budget import LruBudget
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.tensorrt_engine import TensorRtEngine
from runtime.engines.torch.merge_threads import MergeThreads
from runtime.engines.torch.weights_cache import WeightsCache
from runtime.networks.architecture import architecture_of
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.emulator import Emulator, HostStream
from tests.unit.export.tensorrt.plans import make_plan
from tests.unit.runtime.tiny_checkpoints import read_checkpoint


@pytest.fixture
def emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """TensorRT-RTX; TensorRT where the parameter is False."""
    found = Emulator(is_rtx=getattr(request, "param", True))
    monkeypatch.setattr(flavour, "trt", found)
    monkeypatch.setattr(flavour, "IS_RTX", found.is_rtx)
    return found


@pytest.fixture(scope="module")
def sd15(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny / "sd15")


@pytest.fixture
def make(graphs: Graphs, emulator: Emulator, tmp_path: Path) -> Callable[..., TensorRtEngine]:
    """Makes the engine of one of the tiny networks."""

    def engine(
        name: str, component: Component, precision: Precision = "float32", cuda_graphs: bool = True
    ) -> TensorRtEngine:
        architecture = graphs.network(name).architecture
        assert architecture == architecture_of(architecture.kind, component.config)
        plan = make_plan(graphs.artifact(name, "linear"), architecture, tmp_path, precision)
        budget: LruBudget[Any] = LruBudget(1 << 30)
        caches = WeightsCache(budget, MergeThreads(1)), LowRankCache(budget)
        return TensorRtEngine(architecture, plan, torch.device("cpu"), HostStream(), *caches, cuda_graphs)

    return engine
