"""The trained networks: from the training folder, else the committed weights, else untrained."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from deploy.demo_model.paths import CHECKPOINT, TRAINING
from deploy.demo_model.pipeline.components import make_vae
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.state import load_average


def trained_vae() -> AutoencoderKL:
    """The autoencoder in float32 on the CPU; the caller sets its scaling factor."""
    vae = make_vae()
    if not load_average("vae", vae) and CHECKPOINT.exists():
        vae.load_state_dict(AutoencoderKL.from_pretrained(CHECKPOINT / "vae").state_dict())
    load_average("decoder", vae)
    return vae


def load_run(name: str, module: torch.nn.Module) -> None:
    """Load the averaged weights of the run `name` into `module`. Raises FileNotFoundError if there is no saved run,
    so that untrained weights are never published."""
    if not load_average(name, module):
        raise FileNotFoundError(f"the run {name} has no state in {TRAINING}: train it first")


def trained_denoiser() -> Denoiser:
    """The UNet, the text encoder and the latents' scale in float32 on the CPU."""
    denoiser = Denoiser()
    if not load_average("unet", denoiser) and CHECKPOINT.exists():
        denoiser.unet.load_state_dict(UNet2DConditionModel.from_pretrained(CHECKPOINT / "unet").state_dict())
        text_encoder = CLIPTextModel.from_pretrained(CHECKPOINT / "text_encoder", dtype=torch.float32)
        denoiser.text_encoder.load_state_dict(text_encoder.state_dict())
        denoiser.scale.fill_(AutoencoderKL.load_config(CHECKPOINT / "vae")["scaling_factor"])
    return denoiser
