import pytest
import torch
from diffusers import DDIMScheduler

from deploy.demo_model.pipeline.components import make_scheduler
from deploy.demo_model.training.denoiser import LOW_NOISE_TIMESTEPS, OTHER_CAPTION_SHARE, Denoiser
from deploy.demo_model.training.diffusion_loss import v_loss

LATENTS = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def _noise(noisy: torch.Tensor, times: torch.Tensor, scheduler: DDIMScheduler) -> torch.Tensor:
    alphas_cumprod = scheduler.alphas_cumprod[times][:, None, None, None]
    noise: torch.Tensor = (noisy - alphas_cumprod.sqrt() * LATENTS) / (1 - alphas_cumprod).sqrt()
    return noise


def test_the_velocity_of_diffusers_has_no_loss() -> None:
    scheduler = make_scheduler()

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        noise = _noise(noisy, times, scheduler)
        assert torch.allclose(scheduler.add_noise(LATENTS, noise, times), noisy, atol=1e-5)
        velocity: torch.Tensor = scheduler.get_velocity(LATENTS, noise, times)
        return velocity

    assert v_loss(LATENTS, scheduler.alphas_cumprod, predict) < 1e-6


def test_predicting_the_noise_has_a_loss() -> None:
    scheduler = make_scheduler()

    loss = v_loss(LATENTS, scheduler.alphas_cumprod, lambda noisy, times: _noise(noisy, times, scheduler))

    assert loss > 0.1


def test_predicting_zeros_costs_the_power_of_the_velocity() -> None:
    """Latents and noise of power 1 have a velocity of power 1."""
    loss = v_loss(LATENTS, make_scheduler().alphas_cumprod, lambda noisy, _: torch.zeros_like(noisy))

    assert float(loss) == pytest.approx(1.0, abs=0.05)


class RecordingDenoiser(Denoiser):
    """Predicts zeros and records its inputs."""

    def forward(self, noisy: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        self.inputs = times, tokens
        return torch.zeros_like(noisy)


def test_captions_are_swapped_at_low_noise() -> None:
    torch.manual_seed(0)
    denoiser, count = RecordingDenoiser(), 4000
    own = torch.arange(count)[:, None].expand(count, 77)
    denoiser.loss(torch.randn(count, 4, 1, 1), own)
    times, said = denoiser.inputs
    of_another = (said != own).any(dim=1)
    little = times < LOW_NOISE_TIMESTEPS
    assert not of_another[~little].any()
    assert of_another[little].float().mean().item() == pytest.approx(OTHER_CAPTION_SHARE, abs=0.05)
