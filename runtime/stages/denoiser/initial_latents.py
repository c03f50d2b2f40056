"""The first latents of a job: drawn in diffusers' order, first the posterior, then the noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from diffusers.utils.torch_utils import randn_tensor

from runtime.conditioning.image_prompt import ImagePrompts
from runtime.conditioning.ip_masks import PictureMasks
from runtime.plan import Plan
from runtime.schedulers.schedule import Schedule, make_schedule


@dataclass(frozen=True)
class Conditions:
    """The outputs of the other stages for a job, float32.

    text [branches, T, D] and pooled [branches, P] (P = 0: none). The branches are the negative prompt and the prompt,
    or the prompt alone. mean and std [1, 4, h, w] of the init image's posterior; [0, 4, h, w] without one.
    `image_prompts` are those of the IP-Adapters, `ip_masks` the masks of the whole picture (None: no adapter has one).
    concat [C, h, w]: IC-Light's further input channels (C = 0: none).
    """

    text: torch.Tensor
    pooled: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    image_prompts: ImagePrompts = field(default_factory=ImagePrompts.none)
    concat: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 1, 1))
    ip_masks: PictureMasks | None = None

    def to(self, device: torch.device) -> Conditions:
        """What conditions the rows of each step, on this device. The posterior stays where it is."""
        text, pooled, concat = (tensor.to(device) for tensor in (self.text, self.pooled, self.concat))
        return replace(self, text=text, pooled=pooled, concat=concat, image_prompts=self.image_prompts.to(device))


def plan_schedule(plan: Plan) -> Schedule | None:
    """The schedule of a plan; None when no step is run. Raises InvalidArgument (see `make_schedule`)."""
    if plan.has_image and plan.request.noise_strength == 0.0:
        return None
    return make_schedule(plan.request, plan.checkpoint.scheduler, has_image=plan.has_image)


def initial_latents(
    plan: Plan, conditions: Conditions, schedule: Schedule | None, generator: torch.Generator
) -> torch.Tensor:
    """The latents [N, 4, h, w] at the noise level of the first step."""
    scaling = plan.checkpoint.scaling_factor
    shape = (plan.request.num_images, *conditions.mean.shape[1:])
    if schedule is None:
        # As in AutoencoderKL.forward, the VAE's round trip uses the posterior's mean.
        return (conditions.mean * scaling).expand(shape).clone()
    if not plan.has_image:
        return schedule.pure_noise(randn_tensor(shape, generator))
    sample = conditions.mean + conditions.std * randn_tensor(conditions.mean.shape, generator)
    noise = randn_tensor(shape, generator)
    return schedule.add_noise((sample * scaling).expand(shape), noise)
