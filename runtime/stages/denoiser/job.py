"""A job: denoises one request's latents. It owns its scheduler and its generator."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from runtime.conditioning.controlnet import ControlNet, ControlNets, Residuals
from runtime.conditioning.guidance import guidance_embedding, guide
from runtime.conditioning.prompt import Prompt, size_ids
from runtime.conditioning.row import Row
from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.plan import Plan
from runtime.stages.denoiser.initial_latents import Conditions, initial_latents


class Job:
    """Draws in diffusers' order (posterior, noise, step noise) from one CPU generator, N latents at a time.

    What a step computes with stays on the UNet's device, so a GPU never waits for a copy between two calls. The
    scheduler's own tensors stay on the CPU, where a number costs no kernel.
    """

    def __init__(
        self,
        plan: Plan,
        conditions: Conditions,
        unet: Bound,
        controlnets: Sequence[ControlNet] = (),
    ) -> None:
        """The job releases the bindings it is given when it is closed. Raises InvalidArgument (see `make_schedule`)."""
        self._bound = [unet, *(controlnet.bound for controlnet in controlnets)]
        request = plan.request
        self._unet = unet
        device = unet.engine.device
        self._guidance_scale = request.guidance_scale if plan.guided else None
        self._prompt = _prompt(plan, conditions.text.to(device), conditions.pooled.to(device))
        self._image_prompts = conditions.image_prompts.to(device)
        self._controlnets = ControlNets(controlnets, self._prompt, guess_mode=request.controlnet_guess_mode)
        width = plan.guidance_width
        self._timestep_cond = None if width is None else guidance_embedding(request.guidance_scale - 1.0, width)
        self._generator = torch.Generator("cpu").manual_seed(plan.seed)
        self._keep_passes = request.debug_per_pass_latents
        self._passes: list[torch.Tensor] = []
        self._steps_done = 0
        latents, self._schedule = initial_latents(plan, conditions, self._generator)
        self.latents = latents.to(device)

    @property
    def steps_done(self) -> int:
        return self._steps_done

    @property
    def steps(self) -> int:
        """The number of steps of the whole job."""
        return len(self._schedule.timesteps) if self._schedule else 0

    @property
    def done(self) -> bool:
        return self._steps_done >= self.steps

    @property
    def passes(self) -> torch.Tensor:
        """The latents after each step, [steps, N, 4, h, w]; [0, N, 4, h, w] unless asked for."""
        return torch.stack(self._passes) if self._passes else self.latents[None][:0]

    def step(self) -> Generator[list[Ask], list[Outputs], None]:
        """One denoising step: yields lists of asks, and takes the outputs of each list, in its order."""
        assert self._schedule is not None and not self.done
        t = self._schedule.timesteps[self._steps_done]
        scaled = self._schedule.scale(self.latents, t)
        residuals = yield from self._controlnets.residuals(scaled, t, self._steps_done, self.steps)
        outputs = yield self._unet_asks(scaled, t, residuals)
        prediction = guide(_stacked(outputs), self._guidance_scale)
        self.latents = self._schedule.step(prediction, t, self.latents, self._generator)
        if self._keep_passes:
            self._passes.append(self.latents)
        self._steps_done += 1

    def close(self) -> None:
        """Release the bindings. Called once: by the loop, or by the maker of a job that never joins a loop."""
        for bound in self._bound:
            bound.release()

    def _unet_asks(self, scaled: torch.Tensor, t: torch.Tensor, residuals: Sequence[Residuals | None]) -> list[Ask]:
        """For each latent of `scaled` [N, 4, h, w], one row for each branch of the prompt."""
        branches = self._prompt.branches
        return [
            Ask(
                self._unet,
                Row(
                    latent=scaled[index // branches],
                    t=t.float(),
                    timestep_cond=self._timestep_cond,
                    residuals=row_residuals,
                    **self._image_prompts.fields(index % branches),
                    **self._prompt.fields(index % branches),
                ).inputs(),
            )
            for index, row_residuals in enumerate(residuals)
        ]


def _prompt(plan: Plan, text: torch.Tensor, pooled: torch.Tensor) -> Prompt:
    if not pooled.shape[-1]:
        return Prompt(text)
    return Prompt(text, pooled, size_ids(plan.padded_height, plan.padded_width))


def _stacked(outputs: Sequence[Outputs]) -> torch.Tensor:
    """The UNet's predictions [rows, 4, h, w]."""
    predictions = []
    for output in outputs:
        prediction = output["prediction"]
        assert isinstance(prediction, torch.Tensor)
        predictions.append(prediction)
    return torch.stack(predictions)
