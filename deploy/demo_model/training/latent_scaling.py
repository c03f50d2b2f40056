"""Gives an autoencoder's latents the same spread in each channel.

A pipeline knows one scaling factor for all of them, and what is small beside the others drowns in the noise first: left
alone, the channel of fine detail had four times the spread of those of colour, and colours were learned late."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL


def channel_factors(latents: torch.Tensor) -> torch.Tensor:
    """What to multiply each channel of `latents` [n, c, h, w] by, [c], for a spread of 1."""
    return 1 / latents.float().std(dim=(0, 2, 3))


def scale_channels(vae: AutoencoderKL, factors: torch.Tensor) -> None:
    """Let the autoencoder's latents be `factors` [c] times what they were; what it decodes stays the same.

    The layers next to the latents are linear in them, so this is exact: the last one of the encoder gives their mean
    and the logarithm of their variance, the first one of the decoder takes them."""
    with torch.no_grad():
        mean_weight, _ = vae.quant_conv.weight.chunk(2)
        mean_bias, log_variance_bias = vae.quant_conv.bias.chunk(2)
        mean_weight *= factors[:, None, None, None]
        mean_bias *= factors
        log_variance_bias += 2 * factors.log()
        vae.post_quant_conv.weight /= factors[None, :, None, None]
