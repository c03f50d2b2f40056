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
from runtime.artifacts.graph_call import GraphCall
from runtime.artifacts.plan import Machine
from runtime.engines import select as selecting
from runtime.engines.engine import Engine, SizesError, WeightsError
from runtime.engines.placement import Placement
from runtime.engines.select import Engines
from runtime.engines.tensorrt import make_engine
from runtime.engines.tensorrt.plan_error import PlanError
from runtime.engines.tensorrt.plan_sizes import check_sizes
from runtime.settings import Settings, SettingsError
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.plans import MACHINE, compress, make_plan
from tests.unit.runtime.fake_engine import FakeEngine

NAME = "sd15 vae_decoder"


class SelectedEngine(FakeEngine):
    """Stands for the engine, whose plan needs a GPU."""

    name = "tensorrt"
    error: Exception | None = None

    def __init__(self, *arguments: Any) -> None:
        if self.error:
            raise self.error
        self.architecture, self.plan, self.cuda_graphs = arguments[0], arguments[1], arguments[-1]

    def check_sizes(self, call: GraphCall) -> None:
        check_sizes(self.plan, self.architecture, call)


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
    monkeypatch.setattr(SelectedEngine, "error", None)
    monkeypatch.setattr(make_engine, "TensorRtEngine", SelectedEngine)
    monkeypatch.setattr(make_engine, "CudaStream", lambda: None)

    def found(
        engine: Any = "auto",
        machine: Machine = MACHINE,
        cuda_graphs: bool = True,
        calls: tuple[tuple[GraphCall, ...], ...] = ((),),
    ) -> Engine:
        """The engine of the last of `calls`, which one server gets in turn."""
        monkeypatch.setattr(make_engine, "this_machine", lambda: machine)
        engines = Engines(Settings(device="cpu", artifacts=artifacts, threads=1), "vae_decoder")
        engines.placement = Placement(torch.device("cuda"), torch.float16)
        engines._settings = engines._settings.model_copy(update={"engine": engine, "cuda_graphs": cuda_graphs})
        return [engines.of(graphs.network(NAME).architecture, of_request) for of_request in calls][-1]

    return found


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_a_plan_for_this_machine_is_used(select: Callable[..., Engine], engine: str) -> None:
    """The VAE asks for float32, so its float32 plan serves a server in float16."""
    found = select(engine)
    assert isinstance(found, SelectedEngine)
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
    assert isinstance(found, SelectedEngine)
    assert found.cuda_graphs is expected


TAKEN, TOO_LARGE = GraphCall(1, 16, 16, 1, 0), GraphCall(1, 17, 16, 1, 0)


def test_torch_serves_the_sizes_that_the_plan_does_not_take(
    select: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lorikeet"):
        assert select(calls=((TAKEN, TOO_LARGE),)).name == "torch"
    assert "a request has 17 latents of height, an eighth of the pixels; the TensorRT plan" in caplog.text
    caplog.clear()
    assert select(calls=((TAKEN,), (TOO_LARGE,), (TAKEN,))).name == "tensorrt"
    assert select(calls=((TOO_LARGE,), (TAKEN,), (TOO_LARGE,))).name == "torch"
    assert caplog.text.count("the torch engine serves requests of such sizes") == 2, "once for each server"


def test_the_setting_tensorrt_refuses_such_sizes(select: Callable[..., Engine]) -> None:
    assert select("tensorrt", calls=((TAKEN,),)).name == "tensorrt"
    with pytest.raises(SizesError, match=r"17 latents of height.* takes 3 to 16; other sizes need another plan"):
        select("tensorrt", calls=((TOO_LARGE,),))


def test_more_block_rows_than_a_plan_takes_are_refused_at_the_start(
    artifacts: Path, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the setting `tensorrt`; only plans of this machine count."""
    plan = make_plan(graphs.artifact("sd15 unet", "linear"), graphs.network("sd15 unet").architecture, artifacts)
    with exporting(artifacts):
        publish_plan(artifacts, plan.manifest, compress(plan.plan))
    monkeypatch.setattr(selecting, "place", lambda _: Placement(torch.device("cpu"), torch.float32))

    def start(rows: int, machine: Machine = MACHINE, engine: Any = "tensorrt") -> Engines:
        monkeypatch.setattr(make_engine, "this_machine", lambda: machine)
        return Engines(Settings(device="cpu", engine=engine, artifacts=artifacts, threads=1, block_rows=rows), "unet")

    with pytest.raises(SettingsError, match=r"^LORIKEET_BLOCK_ROWS: 5, but .* takes at most 4 rows; set at most 4"):
        start(5)
    for given in ((4,), (0,), (5, OTHER), (5, MACHINE, "auto")):
        assert start(*given)


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
    monkeypatch.setattr(SelectedEngine, "error", PlanError("the plan cannot be loaded"))
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
