"""Checkpoints on disk as the runtime reads them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch

from runtime.checkpoints.checkpoint import Checkpoint, Component, Role, WeightFile
from runtime.checkpoints.folder import read_folder
from runtime.engines.engine import never_cancelled
from runtime.files.located import Folder
from runtime.files.stored_file import StoredFile
from runtime.weights.read_base import read_base


def digest(path: Path) -> StoredFile:
    return StoredFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


def copy_folder(source: Path, target: Path) -> Path:
    """A copy of a folder in `target`, which may exist.

    Not of links: a new link changes the time stamp of a file, and a server may be using it.
    """
    return Path(shutil.copytree(source, target, dirs_exist_ok=True))


def read_checkpoint(folder: Path) -> Checkpoint:
    return read_folder(Folder(folder.resolve(), folder.resolve()), digest)


def read_component(role: Role, folder: Path) -> Component:
    """One network alone, as `read_checkpoint` would find it."""
    config = json.loads((folder / "config.json").read_text())
    files = [digest(path) for path in sorted(folder.glob("*.safetensors"))]
    return Component(role=role, config=config, files=tuple(WeightFile(path=f.path, digest=f.digest) for f in files))


def base_tensors(component: Component) -> dict[str, torch.Tensor]:
    """All of a component's parameters by canonical name, as its files hold them."""
    return dict(read_base(component, component.shapes.keys(), never_cancelled))
