"""The two halves of the VAE, each a network of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from runtime.networks.network import Network, complete


class VaeEncoder(Network):
    """Pixels [1, 3, H, W] in [-1, 1] -> the posterior's `mean` and `std`, [1, 4, H/8, W/8]. It does not sample."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL.from_config(config)
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    @classmethod
    def architecture(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return complete(AutoencoderKL, config)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(pixels)
        posterior = DiagonalGaussianDistribution(self.quant_conv(hidden) if self.quant_conv else hidden)
        return {"mean": posterior.mean, "std": posterior.std}


class VaeDecoder(Network):
    """Latents [1, 4, h, w], divided by the scaling factor -> `pixels` [1, 3, 8h, 8w] around [-1, 1]."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        vae = AutoencoderKL.from_config(config)
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    @classmethod
    def architecture(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return complete(AutoencoderKL, config)

    def forward(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixels": self.decoder(self.post_quant_conv(latents) if self.post_quant_conv else latents)}
