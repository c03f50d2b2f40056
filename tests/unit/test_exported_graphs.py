"""The demo exports a checkpoint only where its graphs are missing and would be used."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import exported_graphs
from runtime.artifacts.artifact import ArtifactError

Calls = list[list[str]]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """The commands of the exports. On a machine with openvino and without a GPU."""
    commands: Calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(exported_graphs, "_NVIDIA_DRIVER", tmp_path / "none")
    monkeypatch.setattr(exported_graphs, "find_spec", lambda name: name)
    monkeypatch.setenv("LORIKEET_ARTIFACTS", str(tmp_path / "artifacts"))
    return commands


def test_missing_graphs_are_exported(exports: Calls, tiny: Path) -> None:
    exported_graphs.export_missing([tiny / "sd15"])
    (command,) = exports
    assert command[1:] == ["-m", "export", "--model", str(tiny / "sd15")]


def test_exported_graphs_are_not_exported_again(exports: Calls, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported_graphs, "read_graphs", lambda root, architecture: {"none": object()})
    exported_graphs.export_missing([tiny / "sd15"])
    assert exports == []


def test_damaged_graphs_are_exported_again(exports: Calls, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: Any) -> None:
        raise ArtifactError(Path("graph"), "damaged")

    monkeypatch.setattr(exported_graphs, "read_graphs", damaged)
    exported_graphs.export_missing([tiny / "sd15"])
    assert len(exports) == 1


@pytest.mark.parametrize("setting", ["ENGINE=torch", "DEVICE=cuda"])
def test_a_server_of_another_engine_needs_no_graphs(
    exports: Calls, tiny: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = setting.split("=")
    monkeypatch.setenv(f"LORIKEET_{name}", value)
    exported_graphs.export_missing([tiny / "sd15"])
    assert exports == []


def test_a_machine_with_a_gpu_or_without_openvino_needs_no_graphs(
    exports: Calls, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(exported_graphs, "_NVIDIA_DRIVER", tmp_path)
        exported_graphs.export_missing([tiny / "sd15"])
    monkeypatch.setattr(exported_graphs, "find_spec", lambda name: None if name == "openvino" else name)
    exported_graphs.export_missing([tiny / "sd15"])
    assert exports == []
