"""ControlNets of the tiny UNets, in the layout of diffusers and in that of the technique's authors."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file

from tests.tiny.original import original_unet
from tests.tiny.unets import SD2, SD15, SDXL
from tests.tiny.weights import fill

KINDS = {"sd15": SD15, "sd2": SD2, "sdxl": SDXL}
CONDITIONING = (8, 8, 16, 16)
WEIGHTS = "diffusion_pytorch_model.safetensors"
_OF_A_UNET_ALONE = ("sample_size", "up_block_types")
_HINT_BLOCKS = 6


def write_controlnets(folder: Path) -> None:
    """Write two ControlNets for each kind of checkpoint, `sd15`, `sd15_b`, ..., and the first one as single files.

    A third one, `sd15_pooled`, ..., gives one mean of each residual, as ControlNet 1.1 shuffle does.
    """
    for seed, (kind, config) in enumerate(KINDS.items()):
        write_controlnet(folder / kind, 70 + seed, config)
        write_controlnet(folder / f"{kind}_b", 80 + seed, config)
        write_controlnet(folder / f"{kind}_pooled", 90 + seed, config, global_pool_conditions=True)
        original = original_controlnet(folder / kind)
        save_file(original, folder / f"{kind}_original.safetensors")
        torch.save({"state_dict": original}, folder / f"{kind}_original.pth")
        shutil.copy(folder / kind / WEIGHTS, folder / f"{kind}_file.safetensors")


def write_controlnet(folder: Path, seed: int, config: dict[str, Any], **options: Any) -> None:
    """Write a ControlNetModel of the UNet of `config`. No weight is 0: before training, its last convolutions are."""
    controlnet = ControlNetModel(**{**controlnet_config(config), **options})
    fill(controlnet, seed, {})
    controlnet.save_pretrained(folder)


def controlnet_config(unet: dict[str, Any]) -> dict[str, Any]:
    """The options of a ControlNetModel of the UNet with this configuration."""
    shared = {name: value for name, value in unet.items() if name not in _OF_A_UNET_ALONE}
    return {
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "conditioning_embedding_out_channels": CONDITIONING,
        **shared,
    }


def original_controlnet(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the ControlNet in `folder` under the names `control_model.…`."""
    stored = load_file(folder / WEIGHTS)
    special = {name: tensor for name, tensor in stored.items() if name.startswith("controlnet_")}
    halves = {name: tensor for name, tensor in stored.items() if name not in special}
    tensors = original_unet(halves) | {_original_name(name): tensor for name, tensor in special.items()}
    return {f"control_model.{name}": tensor for name, tensor in tensors.items()}


def _original_name(name: str) -> str:
    name = re.sub(r"controlnet_down_blocks\.(\d+)\.", r"zero_convs.\1.0.", name)
    name = name.replace("controlnet_mid_block.", "middle_block_out.0.")
    places = {"conv_in": 0, "conv_out": 2 * _HINT_BLOCKS + 2}
    places |= {f"blocks.{index}": 2 * index + 2 for index in range(_HINT_BLOCKS)}
    for part, place in places.items():
        name = name.replace(f"controlnet_cond_embedding.{part}.", f"input_hint_block.{place}.")
    return name
