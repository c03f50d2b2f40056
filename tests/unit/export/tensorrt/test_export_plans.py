"""`python -m export --engine tensorrt`: what it builds and says. The builder itself is tested in test_build.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from export.__main__ import app
from export.tensorrt import export_plans as exporting_plans
from export.tensorrt import make_plan as making
from runtime.artifacts.artifact import GRAPH_FILE, MANIFEST_FILE
from runtime.artifacts.manifest import low_rank_modes
from runtime.artifacts.plan import PLAN_FILE, Machine
from runtime.artifacts.plan_manifest import PlanManifest
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import FlavourMissing
from runtime.networks.architecture import architecture_of
from tests.unit.export.conftest import Graphs
from tests.unit.export.tensorrt.emulator import emulated_plan
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

PARTS = ("unet", "vae_encoder", "vae_decoder", "text_encoder")


@pytest.fixture
def root(graphs: Graphs, tiny: Path, tmp_path: Path) -> Path:
    """A folder with the graphs of the tiny SD 1.5. Those that no plan is built from are stand-ins."""
    for part in PARTS:
        name = f"sd15 {part}"
        graph = graphs.artifact(name, "linear").manifest
        source = graph.key.folder(graphs.root)
        for mode in low_rank_modes(graph.kind):
            place = graph.key._replace(low_rank=mode).folder(tmp_path)
            place.mkdir(parents=True)
            (place / GRAPH_FILE).write_bytes((source / GRAPH_FILE).read_bytes())
            manifest = graph.model_copy(update={"low_rank": mode})
            (place / MANIFEST_FILE).write_text(manifest.model_dump_json())
    return tmp_path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The targets of each plan that was built, by a builder that needs no time."""
    found: list[tuple[str, ...]] = []

    def build(model: Any, shapes: Any, targets: tuple[str, ...]) -> bytes:
        found.append(targets)
        return emulated_plan(model, shapes)

    monkeypatch.setattr(making, "build_for_targets", build)
    return found


def _export(root: Path, tiny: Path, *arguments: str) -> Result:
    command = ["--model", str(tiny / "sd15"), "--engine", "tensorrt", *arguments]
    return CliRunner().invoke(app, command, env={"LORIKEET_ARTIFACTS": str(root)})


def _manifests(root: Path) -> dict[str, PlanManifest]:
    paths = [path.with_name(MANIFEST_FILE) for path in root.rglob(PLAN_FILE)]
    return {found.key.kind: found for found in (PlanManifest.model_validate_json(path.read_text()) for path in paths)}


def test_each_network_has_a_plan(root: Path, tiny: Path, built: list[tuple[str, ...]]) -> None:
    result = _export(root, tiny)
    assert result.exit_code == 0, result.output
    assert built == [("8.0", "8.6", "8.9", "12.0")] * len(PARTS)
    found = _manifests(root)
    assert found.keys() == set(PARTS)
    assert found["unet"].key.architecture == architecture_of("unet", read_checkpoint(tiny / "sd15").unet.config).digest
    # The tiny VAE asks for float32, as SDXL's.
    assert {kind: plan.key.precision for kind, plan in found.items()} == {
        kind: "float32" if kind.startswith("vae") else "float16" for kind in PARTS
    }
    assert {plan.key.low_rank for plan in found.values() if plan.key.kind in ("unet", "text_encoder")} == {"linear"}
    assert not any(plan.verified or plan.gpu for plan in found.values())
    assert {plan.weights for plan in found.values()} == {"placeholders"}
    for part in PARTS:
        assert f"{part}: " in result.output and "not verified" in result.output


def test_a_second_export_builds_nothing(root: Path, tiny: Path, built: list[tuple[str, ...]]) -> None:
    for targets, count in (("8.9", 1), ("8.9", 1), ("8.6,8.9", 2), ("8.9,8.6", 2), ("8.9", 2)):
        result = _export(root, tiny, "--targets", targets)
        assert result.exit_code == 0, result.output
        assert len(built) == count * len(PARTS)
        assert "built again" not in result.output


def test_plans_for_targets_replace_no_verified_plan(
    root: Path, tiny: Path, built: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a GPU, and on one that shares its folder."""
    machine = Machine(flavour.NAME, flavour.VERSION, "NVIDIA L4", "8.9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(making, "build_on_gpu", lambda model, shapes, *_: emulated_plan(model, shapes))
    monkeypatch.setattr(making, "_check", lambda *_: None)
    for gpu in (machine, machine._replace(gpu="NVIDIA L40S")):
        for module in (making, exporting_plans):
            monkeypatch.setattr(module, "this_machine", lambda gpu=gpu: gpu)
        assert _export(root, tiny).exit_code == 0
    assert _export(root, tiny, "--targets", "8.9").exit_code == 0
    assert len(built) == len(PARTS)
    found = [PlanManifest.model_validate_json(path.read_text()) for path in root.glob("tensorrt*/unet/*/*/*/*/*.json")]
    assert sorted((plan.gpu or "", plan.verified) for plan in found) == [
        ("", False),
        ("NVIDIA L4", True),
        ("NVIDIA L40S", True),
    ]
    result = _export(root, tiny)
    assert "built already" in result.output and "NVIDIA-L40S" in result.output.replace("\n", "")


def test_profiles_of_ones_own(root: Path, tiny: Path, tmp_path: Path, built: list[tuple[str, ...]]) -> None:
    sizes = {"rows": [1, 1, 1], "height": [8, 8, 8], "width": [8, 8, 8]}
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps(dict.fromkeys(PARTS[:-1], sizes)))
    result = _export(root, tiny, "--profiles", str(path))
    assert result.exit_code == 1
    assert "the profiles have no sizes for a text_encoder" in result.output
    assert _manifests(root)["unet"].shapes["latent"] == ((1, 4, 8, 8),) * 3


def test_a_plan_of_other_sizes_is_built_again(
    root: Path, tiny: Path, tmp_path: Path, built: list[tuple[str, ...]]
) -> None:
    sizes = {"rows": [1, 1, 1], "height": [8, 8, 8], "width": [8, 8, 8]}
    path = tmp_path / "profiles.json"
    path.write_text(json.dumps(dict.fromkeys(PARTS, sizes)))
    for arguments, count in (((), 1), (("--profiles", str(path)), 2), (("--profiles", str(path)), 2), ((), 2)):
        result = _export(root, tiny, *arguments)
        assert result.exit_code == 0, result.output
        assert len(built) == count * len(PARTS)
        assert ("other sizes of calls" in result.output) == (bool(arguments) and "built already" not in result.output)
    assert {plan.profile.rows for plan in _manifests(root).values()} == {(1, 1, 1)}


def test_without_tensorrt_the_error_says_what_to_install(
    root: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FlavourMissing, match="neither tensorrt nor tensorrt_rtx is installed: pip install") as missing:
        flavour._find()
    monkeypatch.setitem(sys.modules, "export.tensorrt.export_plans", _Raising(missing.value))
    result = _export(root, tiny)
    assert result.exit_code == 1
    assert f"lorikeet: {missing.value}" in result.output


class _Raising(ModuleType):
    """A module whose import raises an error."""

    def __init__(self, error: ImportError) -> None:
        super().__init__("raising")
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error
