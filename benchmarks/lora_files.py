"""LoRA files in a trainer's layout, with PEFT's or Kohya's tensor names."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.utils import convert_state_dict_to_kohya
from safetensors.torch import load_file, save_file

from benchmarks.models import RANK
from tests.tiny.lora_layers import layers, low_rank

SPREAD = 0.05  # of an untrained weight's spread
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# Also all convolutions between the first and the last one, as in published LCM-LoRAs.
WITH_CONVOLUTIONS = (*ATTENTION, "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
_WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def write_lora(path: Path, checkpoint: Path, seed: int, targets: tuple[str, ...] = ATTENTION, rank: int = RANK) -> None:
    """Write a LoRA for layers of the checkpoint's UNet in bfloat16; each seed gives different weights.

    `targets`: the ends of the layers' names."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for layer in layers(checkpoint / _WEIGHTS, targets):
        down, up = low_rank(layer, rank, SPREAD, generator)
        tensors[f"unet.{layer.name}.lora_A.weight"] = down.bfloat16()
        tensors[f"unet.{layer.name}.lora_B.weight"] = up.bfloat16()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt"})


def write_in_kohya_names(path: Path, lora: Path) -> None:
    """Write the file `lora` of `write_lora` under Kohya's names, in float16, with alpha = rank."""
    renamed = convert_state_dict_to_kohya(load_file(lora))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in renamed.items()}, path, {"format": "pt"})
