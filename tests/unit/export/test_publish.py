"""An artifact is complete or absent, and a damaged one is named."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from export import publish as publishing
from export.publish import exporting, publish
from runtime.artifacts.artifact import GRAPH_FILE, MANIFEST_FILE, ArtifactError, read_artifact
from runtime.artifacts.manifest import EXPORTER_VERSION, ArtifactKey, GraphTensor, Manifest
from runtime.settings import ROOT

GRAPH = b"graph" * 100
KEY = ArtifactKey("unet", "ab" * 32, "linear")


def _manifest(compressed: bytes) -> Manifest:
    return Manifest(
        exporter=EXPORTER_VERSION,
        kind=KEY.kind,
        architecture=KEY.architecture,
        low_rank=KEY.low_rank,
        opset=20,
        versions={"torch": "2"},
        inputs=(GraphTensor(name="latent", dtype="float32", axes=("rows", 4, "height", "width")),),
        outputs=(),
        initializers=3,
        outside=(),
        graph_sha256=hashlib.sha256(compressed).hexdigest(),
        graph_bytes=len(GRAPH),
    )


def _publish(root: Path) -> Path:
    compressed = lzma.compress(GRAPH)
    with exporting(root):
        return publish(root, _manifest(compressed), compressed)


def test_a_published_artifact_is_read_back(tmp_path: Path) -> None:
    _publish(tmp_path / "new" / "root")
    artifact = read_artifact(tmp_path / "new" / "root", KEY)
    assert artifact is not None
    assert artifact.graph == GRAPH
    assert artifact.manifest.inputs[0].axes == ("rows", 4, "height", "width")


def test_an_artifact_that_was_not_exported_is_none(tmp_path: Path) -> None:
    _publish(tmp_path)
    for other in (KEY._replace(kind="controlnet"), KEY._replace(architecture="cd" * 32), KEY._replace(low_rank="all")):
        assert read_artifact(tmp_path, other) is None


@pytest.mark.parametrize("interrupted", [0, 1])
def test_an_interrupted_export_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    written: list[Path] = []
    write = publishing._write

    def stop(path: Path, data: bytes) -> None:
        if len(written) == interrupted:
            path.write_bytes(data[:3])
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(publishing, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        _publish(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["lock"]
    assert read_artifact(tmp_path, KEY) is None


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    left = tmp_path / ".part-killed" / "artifact"
    left.mkdir(parents=True)
    (left / GRAPH_FILE).write_bytes(b"half")
    _publish(tmp_path)
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"lock", f"onnx-{EXPORTER_VERSION}"}


def test_an_export_waits_for_another_one(tmp_path: Path) -> None:
    waits, entered = threading.Event(), threading.Event()

    def export() -> None:
        with exporting(tmp_path, waits.set):
            entered.set()

    with exporting(tmp_path):
        other = threading.Thread(target=export)
        other.start()
        assert waits.wait(10) and not entered.is_set()
    other.join(10)
    assert entered.is_set()


def test_reading_an_artifact_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, runtime.artifacts.artifact; print(*{'torch', 'onnx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr[-2000:]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (GRAPH_FILE, _flip, "SHA-256"),
        (GRAPH_FILE, lambda path: path.write_bytes(path.read_bytes()[:-9]), "SHA-256"),
        (GRAPH_FILE, lambda path: path.write_bytes(b""), "SHA-256"),
        (GRAPH_FILE, lambda path: path.unlink(), "cannot be read"),
        (MANIFEST_FILE, lambda path: path.unlink(), "cannot be read"),
        (MANIFEST_FILE, lambda path: path.write_text("{"), "JSON"),
        (MANIFEST_FILE, lambda path: path.write_text("{}"), "exporter"),
        (MANIFEST_FILE, lambda path: _edit(path, opset="new"), "opset"),
        (MANIFEST_FILE, lambda path: _edit(path, extra=1), "extra"),
        (MANIFEST_FILE, lambda path: _edit(path, exporter=0), "another artifact"),
        (MANIFEST_FILE, lambda path: _edit(path, architecture="cd" * 32), "another artifact"),
    ],
)
def test_a_damaged_artifact_is_named(tmp_path: Path, name: str, damage: Any, reason: str) -> None:
    path = _publish(tmp_path) / name
    damage(path)
    with pytest.raises(ArtifactError, match=reason) as error:
        read_artifact(tmp_path, KEY)
    assert str(path) in str(error.value) and "make export" in str(error.value)


def test_a_graph_that_does_not_decompress_is_named(tmp_path: Path) -> None:
    with exporting(tmp_path):
        path = publish(tmp_path, _manifest(b"no archive"), b"no archive") / GRAPH_FILE
    with pytest.raises(ArtifactError, match="decompressed") as error:
        read_artifact(tmp_path, KEY)
    assert str(path) in str(error.value)


def test_a_damaged_artifact_is_replaced(tmp_path: Path) -> None:
    _flip(_publish(tmp_path) / GRAPH_FILE)
    _publish(tmp_path)
    artifact = read_artifact(tmp_path, KEY)
    assert artifact is not None and artifact.graph == GRAPH
