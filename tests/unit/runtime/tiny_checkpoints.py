"""Checkpoints on disk as the runtime reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from runtime.checkpoints.checkpoint import Checkpoint, Component, WeightFile
from runtime.checkpoints.folder import read_folder
from runtime.files.located import Folder
from runtime.files.store import StoredFile


def digest(path: Path) -> StoredFile:
    return StoredFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def read_checkpoint(folder: Path) -> Checkpoint:
    return read_folder(Folder(folder.resolve(), folder.resolve()), digest)


def read_component(name: str, folder: Path) -> Component:
    """One network alone, as `read_checkpoint` would find it."""
    config = json.loads((folder / "config.json").read_text())
    files = [digest(path) for path in sorted(folder.glob("*.safetensors"))]
    return Component(name=name, config=config, files=tuple(WeightFile(path=f.path, digest=f.digest) for f in files))
