"""LoRA files, made or spoiled by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from runtime.lora.lora_changes import LoraChanges
from runtime.lora.lora_layer import LoraLayer
from runtime.weights.change import Change
from tests.unit.runtime.tiny_checkpoints import digest

Tensors = dict[str, torch.Tensor]
METADATA = "lora_adapter_metadata"


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata() or {}


def write(path: Path, tensors: Tensors, config: dict[str, Any] | str | None = None) -> Path:
    """Write a file; `config` is diffusers' record of the LoraConfig, as a value or as the text itself."""
    text = config if isinstance(config, str | None) else json.dumps(config)
    save_file(tensors, path, None if text is None else {METADATA: text})
    return path


def pair(name: str, out: int, inputs: int, rank: int = 2, seed: int = 0) -> Tensors:
    """The factors of a linear layer, under PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.lora_A.weight": torch.randn(rank, inputs, generator=generator),
        f"{name}.lora_B.weight": torch.randn(out, rank, generator=generator),
    }


def source(path: Path, layers: Sequence[LoraLayer], scale: float) -> LoraChanges:
    """The changes that these layers of a file make."""
    return LoraChanges(digest(path), layers, scale)


def read_changes(path: Path, layers: Sequence[LoraLayer], scale: float) -> dict[str, Change]:
    """Parameter name -> its change, all of them read."""
    changes = source(path, layers, scale)
    return {name: changes.read(name) for name in changes.names}
