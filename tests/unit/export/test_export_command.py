"""`python -m export`: what it makes, what it says, and that a second checkpoint makes nothing new."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from export import make_artifact as making
from export.__main__ import app
from export.architectures import read_architectures
from export.errors import ExportError
from runtime.artifacts.artifact import GRAPH_FILE, read_artifact
from runtime.artifacts.manifest import ArtifactKey
from runtime.networks.architecture import Architecture, architecture_of
from tests.export_command import Export
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

SD_PARTS = {"unet", "vae_encoder", "vae_decoder", "text_encoder"}


@pytest.fixture(scope="module")
def root(sd15_export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of artifacts after an export of the tiny SD 1.5."""
    return sd15_export.copy(tmp_path_factory.mktemp("exported") / "artifacts")


@pytest.fixture
def making_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise AssertionError("an architecture was exported")

    monkeypatch.setattr(making, "make_artifact", fail)
    yield


def _export(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"LORIKEET_ARTIFACTS": str(root)})


def _files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and path.name != "lock"}


def test_each_network_of_a_checkpoint_has_an_artifact(sd15_export: Export, tiny: Path) -> None:
    root = sd15_export.artifacts
    assert sd15_export.status == 0, sd15_export.output
    checkpoint = read_checkpoint(tiny / "sd15")
    for part in SD_PARTS:
        assert f"{part}: exported in" in sd15_export.output
    unet = architecture_of("unet", checkpoint.unet.config)
    found = read_artifact(root, ArtifactKey("unet", unet.digest, "linear"))
    assert found is not None and found.manifest.architecture == unet.digest
    assert len(_files(root)) == 2 * (len(SD_PARTS) + 3)  # three graphs of the UNet, two of the text encoder


@pytest.mark.usefixtures("making_fails")
@pytest.mark.parametrize("other", ["sd15", "sd15-oldnames", "single/sd15.safetensors"])
def test_a_second_checkpoint_of_the_architecture_makes_nothing(root: Path, tiny: Path, other: str) -> None:
    before = _files(root)
    result = _export(root, "--model", str(tiny / other))
    assert result.exit_code == 0, result.output
    assert result.output.count("exported already") == len(SD_PARTS)
    assert _files(root) == before


@pytest.mark.usefixtures("making_fails")
def test_a_checkpoint_with_other_weights_makes_nothing(root: Path, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny / "sd15", other)
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    before = _files(root)
    assert _export(root, "--model", str(other)).exit_code == 0
    assert _files(root) == before


def test_a_damaged_artifact_is_reported_and_made_again(root: Path, tiny: Path) -> None:
    graph = next(root.glob(f"*/vae_decoder/*/*/{GRAPH_FILE}"))
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    result = _export(root, "--model", str(tiny / "sd15"))
    assert result.exit_code == 0, result.output
    assert f"{graph}: its SHA-256 is not that of its manifest" in result.output
    assert "vae_decoder: exported in" in result.output
    assert result.output.count("exported already") == len(SD_PARTS) - 1
    assert graph.read_bytes() == whole


@pytest.mark.usefixtures("making_fails")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "not found"),
        ({"_class_name": "UNet2DConditionModel"}, "expected ControlNetModel"),
        ({}, "expected ControlNetModel"),
    ],
)
def test_what_is_no_checkpoint_is_an_error(tmp_path: Path, content: dict[str, str] | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text(json.dumps(content))
    result = _export(tmp_path / "artifacts", "--model", str(tmp_path / "model"))
    assert result.exit_code == 1
    assert f"lorikeet: {tmp_path / 'model'}: " in result.output and reason in result.output
    assert not (tmp_path / "artifacts").exists()


def test_a_damaged_weight_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    result = _export(tmp_path / "artifacts", "--model", str(tmp_path / "model.safetensors"))
    assert result.exit_code == 1 and "model.safetensors" in result.output


def test_a_controlnets_folder(tmp_path: Path) -> None:
    config = {"_class_name": "ControlNetModel", "cross_attention_dim": 768}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_architectures(tmp_path) == {"controlnet": architecture_of("controlnet", config)}


def test_an_image_encoders_folder(tmp_path: Path) -> None:
    config = {"architectures": ["CLIPVisionModelWithProjection"], "hidden_size": 1280, "patch_size": 14}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_architectures(tmp_path) == {"image_encoder": architecture_of("image_encoder", config)}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, "no class"),
        ({"architectures": 7}, "the class 7"),
        ({"architectures": {"a": 1}}, "the class {'a': 1}"),
        ({"architectures": [None, ["b"]]}, "the class ['b']"),
        ({"_class_name": ["ControlNetModel"]}, "the class ['ControlNetModel']"),
        ({"architectures": "CLIPModel"}, "the class CLIPModel"),
    ],
)
def test_a_folder_of_another_network_is_refused(tmp_path: Path, config: dict[str, object], found: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=re.escape(f"config.json names {found}; expected ControlNetModel or")):
        read_architectures(tmp_path)


def test_an_architecture_with_more_input_channels(tiny: Path) -> None:
    config = read_checkpoint(tiny / "sd15").unet.config
    found = read_architectures(tiny / "sd15", in_channels=8)["unet"]
    assert found == architecture_of("unet", config | {"in_channels": 8})
    assert found != read_architectures(tiny / "sd15")["unet"]


def test_models_of_one_name_do_not_replace_each_other(root: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Architecture] = {}
    monkeypatch.setattr("export.__main__._export_all", lambda _, architectures: found.update(architectures))
    files = [tiny / "ip_adapters" / kind / "base.safetensors" for kind in ("sd15", "sdxl")]
    assert _export(root, "--model", str(files[0]), "--model", str(files[1])).exit_code == 0
    assert sorted(found) == [f"{file} image_projection" for file in files]
    assert len(set(found.values())) == 2
