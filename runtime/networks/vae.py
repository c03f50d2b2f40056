"""The encoder and the decoder of the VAE, as separate networks."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network


class VaeEncoder(Network):
    """Pixels [rows, 3, H, W] in [-1, 1] -> the posterior's `mean` and `std`, each [rows, 4, H/8, W/8]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        vae = AutoencoderKL.from_config(architecture.options)
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(pixels)
        posterior = DiagonalGaussianDistribution(self.quant_conv(hidden) if self.quant_conv else hidden)
        return {"mean": posterior.mean, "std": posterior.std}


class VaeDecoder(Network):
    """Latents [rows, 4, h, w], divided by the scaling factor -> `pixels` [rows, 3, 8h, 8w], not clipped to [-1, 1]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        vae = AutoencoderKL.from_config(architecture.options)
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixels": self.decoder(self.post_quant_conv(latents) if self.post_quant_conv else latents)}
