"""Reads an artifact, and checks that it is complete."""

from __future__ import annotations

import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from runtime.artifacts.manifest import EXPORTER_VERSION, ArtifactKey, Manifest

MANIFEST_FILE, GRAPH_FILE = "manifest.json", "graph.onnx.xz"
OTHER_ARTIFACT = "it describes another artifact than its place says"
M = TypeVar("M", bound=BaseModel)


class ArtifactError(Exception):
    """An artifact is damaged. The message names the file and says what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; export the checkpoint again (make export)")


@dataclass(frozen=True)
class Artifact:
    """An exported graph: an ONNX model whose initializers have names and shapes, and no data."""

    manifest: Manifest
    graph: bytes


def read_artifact(root: Path, key: ArtifactKey) -> Artifact | None:
    """The artifact in the artifacts' folder `root`; None: it was not exported. Raises ArtifactError."""
    folder = key.folder(root)
    if not folder.is_dir():
        return None
    manifest = read_manifest(folder / MANIFEST_FILE, Manifest)
    if manifest.key != key or manifest.exporter != EXPORTER_VERSION:
        raise ArtifactError(folder / MANIFEST_FILE, OTHER_ARTIFACT)
    return Artifact(manifest, read_compressed(folder / GRAPH_FILE, manifest.graph_sha256))


def read_manifest(path: Path, kind: type[M]) -> M:
    """Raises ArtifactError."""
    try:
        return kind.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ArtifactError(path, f"{where}: {first['msg']}") from error


def read_compressed(path: Path, sha256: str) -> bytes:
    """The decompressed content of a file whose digest a manifest names. Raises ArtifactError."""
    compressed = _read(path)
    if hashlib.sha256(compressed).hexdigest() != sha256:
        raise ArtifactError(path, "its SHA-256 is not that of its manifest")
    try:
        return lzma.decompress(compressed)
    except lzma.LZMAError as error:
        raise ArtifactError(path, f"it cannot be decompressed ({error})") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(path, f"it cannot be read ({error.strerror})") from error
