"""The autoencoder: four levels, eight times smaller, latents of about the size that SD's own has."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from tests.tiny.weights import fill

WIDTHS = (16, 16, 32, 32)
LATENT_CHANNELS = 4
WEIGHTS = "diffusion_pytorch_model.safetensors"
# As SD's VAE before diffusers renamed its attention; the published SD 1.5 still has these names.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def write_vae(folder: Path, seed: int, *, scaling_factor: float, force_upcast: bool) -> None:
    """Write an AutoencoderKL whose scaled posterior has means of about size 1 and deviations of about 0.1."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=scaling_factor,
        force_upcast=force_upcast,
    )
    fill(vae, seed, {"decoder.conv_out.weight": 0.4})
    _shape_posterior(vae, scaling_factor)
    vae.save_pretrained(folder)


def rename_attention(folder: Path) -> None:
    """Give the attention weights in `folder` their old names, in place."""
    path = folder / WEIGHTS
    tensors = {_old_name(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def _shape_posterior(vae: AutoencoderKL, scaling_factor: float) -> None:
    """Scale the means by 1 / scaling_factor and keep the log variances in a narrow band around 0."""
    with torch.no_grad():
        vae.quant_conv.weight[:LATENT_CHANNELS] /= scaling_factor
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.3


def _old_name(name: str) -> str:
    if ".attentions." in name:
        for new, old in OLD_NAMES.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name
