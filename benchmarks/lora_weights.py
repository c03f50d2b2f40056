"""The weight set of a UNet with LoRA files, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.stored_file import StoredFile
from runtime.lora.known_loras import lora_layers
from runtime.lora.lora_changes import LoraChanges
from runtime.weights.weight_set import WeightSet


def unet_with_loras(checkpoint: Checkpoint, loras: Sequence[Path]) -> WeightSet:
    """The UNet's weights with these LoRA files, at scale 1."""
    changes = []
    for path in loras:
        stored = StoredFile(path, str(path))
        found = lora_layers(stored, checkpoint.adaptable)
        layers = [layer for layer in found.layers if layer.target.component == checkpoint.unet.name]
        changes.append(LoraChanges(stored, layers, 1.0, RuntimeError, found.tensors))
    return WeightSet(checkpoint.unet, tuple(changes))
