"""LoRA files for a tiny checkpoint, in the two namings that nearly all published ones have."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny.lora_layers import TEXT, UNET, layers, low_rank

STRENGTH = 0.2


@dataclass(frozen=True)
class Part:
    """A network that a LoRA changes: where its weights lie, how Kohya's names begin, which layers."""

    component: str
    weights: str
    kohya: str
    targets: tuple[str, ...]


UNET_PART = Part("unet", "diffusion_pytorch_model.safetensors", "lora_unet", UNET)
SD15_PARTS = (UNET_PART, Part("text_encoder", "model.safetensors", "lora_te", TEXT))
SDXL_PARTS = (
    UNET_PART,
    Part("text_encoder", "model.safetensors", "lora_te1", TEXT),
    Part("text_encoder_2", "model.safetensors", "lora_te2", TEXT),
)


def write_peft(path: Path, checkpoint: Path, parts: tuple[Part, ...], seed: int, alpha: int | None) -> None:
    """Write `<component>.<layer>.lora_A.weight` and `lora_B.weight`, rank 4, no alpha among the tensors.

    `alpha` goes into the header instead, as `lora_adapter_metadata` of diffusers; with None there is no such
    entry and the scale is 1.
    """
    rank = 4
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, object] = {}
    for part in parts:
        for layer in layers(checkpoint / part.component / part.weights, part.targets):
            down, up = low_rank(layer, rank, STRENGTH, generator)
            tensors[f"{part.component}.{layer.name}.lora_A.weight"] = down
            tensors[f"{part.component}.{layer.name}.lora_B.weight"] = up
        config = {"r": rank, "lora_alpha": alpha, "target_modules": list(part.targets), "peft_type": "LORA"}
        metadata |= {f"{part.component}.{key}": value for key, value in config.items()}
    if alpha is None:
        _save(path, tensors, "format", "pt")
    else:
        _save(path, tensors, "lora_adapter_metadata", json.dumps(metadata, indent=2, sort_keys=True))


def write_kohya(path: Path, checkpoint: Path, parts: tuple[Part, ...], seed: int) -> None:
    """Write `<prefix>_<layer>.lora_down.weight`, `lora_up.weight` and `alpha`, blocks named as in diffusers.

    Linear layers have rank 4 and convolutions rank 2, and no alpha equals its rank.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for part in parts:
        for layer in layers(checkpoint / part.component / part.weights, part.targets):
            rank, alpha = (2, 1.5) if layer.is_convolution else (4, 3.0)
            down, up = low_rank(layer, rank, STRENGTH, generator)
            name = f"{part.kohya}_{layer.name.replace('.', '_')}"
            tensors |= {
                f"{name}.lora_down.weight": down,
                f"{name}.lora_up.weight": up,
                f"{name}.alpha": torch.tensor(alpha),
            }
    _save(path, tensors, "ss_network_module", "lycoris.kohya")


def _save(path: Path, tensors: Mapping[str, torch.Tensor], note: str, content: str) -> None:
    # One entry in the header: safetensors writes several in an order of chance.
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path, {note: content})
