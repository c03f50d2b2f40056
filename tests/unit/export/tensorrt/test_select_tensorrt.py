"""Which engine serves an architecture on a GPU: TensorRT where a plan fits this machine, else torch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.publish import exporting, publish_plan
from runtime.artifacts.artifact import GRAPH_FILE, MANIFEST_FILE
from runtime.artifacts.plan import Machine
from runtime.engines import select as selecting
from runtime.engines.engine import Engine, WeightsError
from runtime.engines.placement import Placement
from runtime.engines.select import Engines
from runtime.engines.tensorrt import make_engine
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.settings import Settings, SettingsError
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.plans import MACHINE, compress, make_plan

NAME = "sd15 vae_decoder"


class FakeEngine:
    """Stands for the engine, whose plan needs a GPU."""

    name = "tensorrt"
    error: Exception | None = None

    def __init__(self, *arguments: Any) -> None:
        if self.error:
            raise self.error
        self.plan, self.cuda_graphs = arguments[1], arguments[-1]


@pytest.fixture
def artifacts(graphs: Graphs, tmp_path: Path) -> Path:
    """A folder with the graph of the tiny VAE decoder, and its float32 plan for MACHINE."""
    artifact = graphs.artifact(NAME, "none")
    source, place = artifact.manifest.key.folder(graphs.root), artifact.manifest.key.folder(tmp_path)
    place.mkdir(parents=True)
    for name in (GRAPH_FILE, MANIFEST_FILE):
        (place / name).write_bytes((source / name).read_bytes())
    plan = make_plan(artifact, graphs.network(NAME).architecture, tmp_path)
    with exporting(tmp_path):
        publish_plan(tmp_path, plan.manifest, compress(plan.plan))
    return tmp_path


@pytest.fixture
def select(artifacts: Path, graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Selects the engine of the VAE decoder as on a machine with a GPU."""
    monkeypatch.setattr(FakeEngine, "error", None)
    monkeypatch.setattr(make_engine, "TensorRtEngine", FakeEngine)
    monkeypatch.setattr(make_engine, "CudaStream", lambda: None)

    def found(engine: Any = "auto", machine: Machine = MACHINE, cuda_graphs: bool = True) -> Engine:
        monkeypatch.setattr(make_engine, "this_machine", lambda: machine)
        engines = Engines(Settings(device="cpu", artifacts=artifacts, threads=1), "vae_decoder")
        engines.placement = Placement(torch.device("cuda"), torch.float16)
        engines._settings = engines._settings.model_copy(update={"engine": engine, "cuda_graphs": cuda_graphs})
        return engines.of(graphs.network(NAME).architecture)

    return found


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_a_plan_for_this_machine_is_used(select: Callable[..., Engine], engine: str) -> None:
    """The VAE asks for float32, so its float32 plan serves a server in float16."""
    found = select(engine)
    assert isinstance(found, FakeEngine)
    assert found.plan.manifest.key.precision == "float32"


@pytest.mark.parametrize(
    ("every_step", "setting", "expected"),
    [({"vae_decoder"}, True, True), ({"vae_decoder"}, False, False), ({"unet"}, True, False)],
)
def test_networks_of_every_step_get_cuda_graphs(
    select: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, every_step: set[str], setting: bool, expected: bool
) -> None:
    monkeypatch.setattr(selecting, "_EVERY_STEP", every_step)
    found = select(cuda_graphs=setting)
    assert isinstance(found, FakeEngine)
    assert found.cuda_graphs is expected


def test_the_setting_torch_uses_no_plan(select: Callable[..., Engine]) -> None:
    assert select("torch").name == "torch"


OTHER = MACHINE._replace(gpu="NVIDIA L40S")


def test_a_plan_for_another_machine_leaves_torch(
    select: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lorikeet"):
        assert select(machine=OTHER).name == "torch"
    assert "this GPU is NVIDIA L40S; export the checkpoint again (make export); the torch engine serves" in caplog.text
    with pytest.raises(WeightsError, match="this GPU is NVIDIA L40S"):
        select("tensorrt", OTHER)


def test_a_plan_that_cannot_be_loaded_leaves_torch(
    select: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "error", PlanError("the plan cannot be loaded"))
    assert select().name == "torch"
    with pytest.raises(WeightsError, match="the plan cannot be loaded"):
        select("tensorrt")


def test_without_tensorrt_torch_serves(select: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runtime.engines.tensorrt.make_engine", None)
    assert select().name == "torch"


def test_an_architecture_without_a_plan(
    select: Callable[..., Engine], graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = MACHINE._replace(flavour="tensorrt")
    assert select(machine=other).name == "torch"
    with pytest.raises(WeightsError, match=r"its vae_decoder was not exported: .*ENGINE=tensorrt"):
        select("tensorrt", other)


def test_tensorrt_needs_a_gpu() -> None:
    with pytest.raises(SettingsError, match="LORIKEET_ENGINE: tensorrt needs CUDA"):
        Engines(Settings(device="cpu", engine="tensorrt", threads=1), "vae_decoder")
