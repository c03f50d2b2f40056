"""Scaled latents have a standard deviation of 1 in each channel and decode to the same pictures."""

from __future__ import annotations

import torch

from deploy.demo_model.pipeline.components import make_vae
from deploy.demo_model.training.latent_scaling import channel_factors, scale_channels


def test_scaled_channels_decode_to_the_same_pictures() -> None:
    torch.manual_seed(0)
    vae, pixels = make_vae().eval(), torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pixels).latent_dist
        decoded = vae.decode(before.mode()).sample
        factors = channel_factors(before.mode())
        scale_channels(vae, factors)
        after = vae.encode(pixels).latent_dist
        again = vae.decode(after.mode()).sample
    torch.testing.assert_close(channel_factors(after.mode()), torch.ones(4))
    torch.testing.assert_close(after.std, before.std * factors[:, None, None])
    torch.testing.assert_close(again, decoded, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(factors, torch.ones(4), atol=0.1)
