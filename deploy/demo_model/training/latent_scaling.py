"""Gives an autoencoder's latents the same standard deviation in each channel.

A pipeline has one scaling factor for all channels, so noise hides a channel of small deviation first.
Without it, the detail channel's deviation was four times that of the colour channels; the UNet learned colours late."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL


def channel_factors(latents: torch.Tensor) -> torch.Tensor:
    """The factors [c] that give each channel of `latents` [n, c, h, w] a standard deviation of 1."""
    return 1 / latents.float().std(dim=(0, 2, 3))


def scale_channels(vae: AutoencoderKL, factors: torch.Tensor) -> None:
    """Multiply the autoencoder's latents by `factors` [c], in place; decoded pictures do not change.

    This is exact, since the layers next to the latents are linear. `quant_conv` gives their mean and the logarithm of
    their variance; `post_quant_conv` takes them."""
    with torch.no_grad():
        mean_weight, _ = vae.quant_conv.weight.chunk(2)
        mean_bias, log_variance_bias = vae.quant_conv.bias.chunk(2)
        mean_weight *= factors[:, None, None, None]
        mean_bias *= factors
        log_variance_bias += 2 * factors.log()
        vae.post_quant_conv.weight /= factors[None, :, None, None]
