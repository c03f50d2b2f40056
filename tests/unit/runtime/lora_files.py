"""LoRA files, made or spoiled by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.lora_changes import LoraChanges
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.lora.lora_layer import LoraLayer
from runtime.weights.change import Change
from tests.unit.runtime.tiny_checkpoints import digest

Tensors = dict[str, torch.Tensor]
METADATA = "lora_adapter_metadata"
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # [16, 16]
CONV = "unet.down_blocks.0.resnets.0.conv1"  # [16, 16, 3, 3]
CROSS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2"
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


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


def assert_refused(path: Path, checkpoint: Checkpoint, reason: str) -> None:
    """The file is refused for a reason that this regular expression finds."""
    with pytest.raises(LoraError, match=reason):
        read_lora(path, checkpoint.adaptable)


def linear() -> Tensors:
    """The pair of LAYER."""
    return pair(LAYER, 16, 16)


def file_bytes(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a .safetensors file; `length` is the header length that it states."""
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data
