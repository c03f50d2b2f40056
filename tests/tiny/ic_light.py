"""IC-Light models of the tiny SD 1.5: offsets of all weights of the UNet, with a first layer of 8 or 12 channels."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.tiny.original import original_unet

SPREAD = 0.1  # of a weight's own spread
CHANNELS = {"fc": 8, "fbc": 12}  # the foreground alone, and with a background


def write_ic_light(folder: Path, checkpoint: Path) -> None:
    """Write `fc.safetensors` and `fbc.safetensors` under diffusers' names, and `fc_ldm.safetensors` under ComfyUI's."""
    folder.mkdir(parents=True)
    weights = load_file(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    for seed, (name, channels) in enumerate(CHANNELS.items(), 110):
        offsets = _offsets(weights, channels, seed)
        save_file(offsets, folder / f"{name}.safetensors")
        if name == "fc":
            original = {f"diffusion_model.{key}": tensor for key, tensor in original_unet(offsets).items()}
            save_file(original, folder / f"{name}_ldm.safetensors")


def _offsets(weights: dict[str, torch.Tensor], channels: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = {}
    for name, tensor in weights.items():
        shape = (len(tensor), channels, *tensor.shape[2:]) if name == "conv_in.weight" else tensor.shape
        spread = SPREAD * float(tensor.std(correction=0)) if tensor.numel() > 1 else SPREAD
        offsets[name] = spread * torch.randn(shape, generator=generator)
    offsets["conv_in.weight"][:, 4:] *= 5  # the pictures matter
    return offsets
