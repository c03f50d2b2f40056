"""Checkpoints in folders, spoiled for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from runtime.checkpoints.checks import CheckpointError
from tests.unit.runtime.tiny_checkpoints import read_checkpoint

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
WEIGHTS = (UNET, VAE, TEXT)
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")


def write(path: Path, content: bytes | str | dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def change_json(path: Path, **values: Any) -> None:
    write(path, json.loads(path.read_text()) | values)


def change_weights(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)


def assert_refused(folder: Path, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(folder)


def rename_weights(folder: Path, suffix: str, *parts: str) -> None:
    """Renames the weight files of components, or of all of them."""
    for path in list(folder.rglob("*.safetensors")):
        if not parts or path.parent.name in parts:
            path.rename(path.with_name(path.name.replace(".safetensors", suffix)))
