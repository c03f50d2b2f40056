"""Single-file checkpoints as the runtime reads them, changed for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.single_file import read_single_file
from runtime.files.located import SingleFile
from tests.unit.runtime.tiny_checkpoints import digest

FILES = {"sd15": "sd15", "sd2": "sd2", "sdxl": "sdxl", "sd15-diffusers": "sd15"}
Tensors = dict[str, torch.Tensor]


def read_single(path: Path, inside: Path | None = None) -> Checkpoint:
    return read_single_file(SingleFile(digest(path), inside))


def change_tensors(path: Path, change: Callable[[Tensors], Tensors]) -> Path:
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)
    return path


def change_sidecar(path: Path, **values: Any) -> None:
    sidecar = path.with_suffix(".config.json")
    content = json.loads(sidecar.read_text()) | values
    sidecar.unlink()
    sidecar.write_text(json.dumps(content))
