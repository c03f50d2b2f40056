"""The loss of latent consistency distillation follows diffusers' schedulers."""

import pytest
import torch
from diffusers import DDIMScheduler

from deploy.demo_model.pipeline.components import make_lcm_scheduler, make_scheduler
from deploy.demo_model.training.consistency_loss import STRIDE, consistency_loss, consistent_latents, ddim_step

ALPHAS: torch.Tensor = make_scheduler().alphas_cumprod
LATENTS = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
V = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def _times(time: int) -> torch.Tensor:
    return torch.full((len(LATENTS),), time)


def _exact_v(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The v of a path that ends at `LATENTS`."""
    power = ALPHAS[times][:, None, None, None]
    return (power.sqrt() * noisy - LATENTS) / (1 - power).sqrt()


def test_a_step_is_that_of_ddim() -> None:
    scheduler = DDIMScheduler.from_config(make_scheduler().config, steps_offset=0)
    scheduler.set_timesteps(1000 // STRIDE)
    time = int(scheduler.timesteps[4])

    expected = scheduler.step(V, time, NOISE).prev_sample

    assert torch.allclose(ddim_step(NOISE, V, ALPHAS, _times(time), _times(time - STRIDE)), expected, atol=1e-5)


@pytest.mark.parametrize("time", [259, 999])
def test_consistent_latents_are_those_of_the_lcm_scheduler(time: int) -> None:
    scheduler = make_lcm_scheduler()
    scheduler.set_timesteps(timesteps=[time])

    expected = scheduler.step(V, time, NOISE).denoised

    assert torch.allclose(consistent_latents(NOISE, V, ALPHAS, _times(time)), expected, atol=1e-5)


def test_latents_without_noise_stay() -> None:
    assert torch.equal(consistent_latents(NOISE, V, ALPHAS, _times(0)), NOISE)


def test_a_consistent_student_has_little_loss() -> None:
    """What is left is the noise of time 0, whose latents the boundary condition does not change."""
    torch.manual_seed(0)

    assert consistency_loss(LATENTS, ALPHAS, _exact_v, _exact_v, _exact_v) < 0.01


def test_another_teacher_or_average_has_a_loss() -> None:
    def other(noisy: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(noisy)

    for teacher, average in ((other, _exact_v), (_exact_v, other)):
        torch.manual_seed(0)
        assert consistency_loss(LATENTS, ALPHAS, teacher, _exact_v, average) > 0.05


def test_only_the_student_learns() -> None:
    scales = [torch.ones((), requires_grad=True) for _ in range(3)]
    teacher, student, average = (lambda noisy, times, scale=scale: scale * _exact_v(noisy, times) for scale in scales)

    torch.autograd.backward(consistency_loss(LATENTS, ALPHAS, teacher, student, average))

    assert [scale.grad is not None for scale in scales] == [False, True, False]
