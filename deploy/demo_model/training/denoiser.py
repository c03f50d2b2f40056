"""The UNet and its text encoder as one trainable module."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import AttnProcessor

from deploy.demo_model.pipeline.components import make_scheduler, make_text_encoder, make_unet
from deploy.demo_model.training.diffusion_loss import v_loss

LOW_NOISE_TIMESTEPS = 330  # of 1000; below it the noisy latents still show the content
OTHER_CAPTION_SHARE = 0.75


class Denoiser(torch.nn.Module):
    """Predicts v from noisy latents, times and tokens; both networks are trained together.

    `scale` is the autoencoder's scaling factor. It is 0 until it is set, then fixed: the UNet depends on it."""

    scale: torch.Tensor
    alphas_cumprod: torch.Tensor  # [times], of the scheduler

    def __init__(self) -> None:
        super().__init__()
        self.unet = make_unet()
        self.text_encoder = make_text_encoder()
        scheduler = make_scheduler()
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod, persistent=False)
        # For heads this narrow, torch's fused attention is several times slower than two matrix products.
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The predicted v, of the shape of `noisy` [n, 4, 16, 16]."""
        states = self.text_encoder(tokens).last_hidden_state
        predicted: torch.Tensor = self.unet(noisy, times, states).sample
        return predicted

    def loss(self, latents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The mean square error of v at one random time for each of the unscaled `latents`."""
        return v_loss(
            latents * self.scale,
            self.alphas_cumprod,
            lambda noisy, times: self(noisy, times, _swap_captions(tokens, times)),
        )


def _swap_captions(tokens: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """`tokens` [n, 77]; below `LOW_NOISE_TIMESTEPS`, `OTHER_CAPTION_SHARE` of the rows get another scene's tokens.

    An image-to-image prompt does not describe its input picture, unlike a training caption. This teaches the model that
    a prompt changes little at low noise."""
    of_another = (times < LOW_NOISE_TIMESTEPS) & (torch.rand(len(times), device=times.device) < OTHER_CAPTION_SHARE)
    return torch.where(of_another[:, None], tokens.roll(1, 0), tokens)
