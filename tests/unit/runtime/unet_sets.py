"""Weight sets of a UNet and a LoRA file, and inputs of the UNet."""

from __future__ import annotations

from pathlib import Path

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.lora.lora_file import read_lora
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import unet_inputs

INPUTS = unet_inputs("sd")


def unet_lora(checkpoint: Checkpoint, path: Path, scale: float) -> WeightSet:
    layers = [layer for layer in read_lora(path, checkpoint.adaptable).layers if layer.target.component == "unet"]
    return WeightSet(checkpoint.unet, (lora_files.source(path, layers, scale),))
