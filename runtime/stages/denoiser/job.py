"""A job: denoises one request's latents. It owns its scheduler and its generator."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch

from runtime.conditioning.controlnet import ControlNet, ControlNets, Residuals
from runtime.conditioning.guidance import guidance_embedding, guide
from runtime.conditioning.image_prompt import ImagePrompts
from runtime.conditioning.prompt import Prompt, size_ids
from runtime.conditioning.row import Row
from runtime.conditioning.slices import slice_latents
from runtime.conditioning.tiles import average, make_windows
from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.engines.together import together
from runtime.plan import Plan
from runtime.schedulers.schedule import Schedule
from runtime.stages.denoiser.initial_latents import Conditions, initial_latents
from runtime.window import Window


@dataclass(frozen=True)
class _Part:
    """A window of the picture, and what conditions its rows. `Window.crop` cuts what is spatial."""

    window: Window
    prompt: Prompt
    controlnets: ControlNets
    image_prompts: ImagePrompts
    concat: torch.Tensor | None


@dataclass(frozen=True)
class _Piece:
    """Some of the N latents in a window."""

    part: _Part
    latents: slice


class Job:
    """Draws in diffusers' order (posterior, noise, step noise) from one CPU generator, N latents at a time.

    What a step computes with stays on the UNet's device, so a GPU never waits for a copy between two calls. The
    scheduler's own tensors stay on the CPU, where a number costs no kernel.
    """

    def __init__(
        self,
        plan: Plan,
        conditions: Conditions,
        schedule: Schedule | None,
        unet: Bound,
        controlnets: Sequence[ControlNet] = (),
    ) -> None:
        """`schedule`: that of `plan_schedule`. The job releases the bindings it is given when it is closed."""
        self._bound = [unet, *(controlnet.bound for controlnet in controlnets)]
        request = plan.request
        self.unet = unet
        device = unet.engine.device
        self._guidance_scale = request.guidance_scale if plan.guided else None
        self._windows = make_windows(*plan.latents_shape[2:], plan.unet_tiles)
        on_device = conditions.to(device)
        parts = [_part(plan, window, on_device, controlnets) for window in self._windows]
        size = slice_latents(unet.block_rows, parts[0].controlnets.rows_per_latent) if controlnets else None
        self._groups = _groups(parts, request.num_images, size)
        width = plan.guidance_width
        self._timestep_cond = None if width is None else guidance_embedding(request.guidance_scale - 1.0, width)
        self._generator = torch.Generator("cpu").manual_seed(plan.seed)
        self._keep_passes = request.debug_per_pass_latents
        self._passes: list[torch.Tensor] = []
        self._steps_done = 0
        self._schedule = schedule
        self.latents = initial_latents(plan, conditions, schedule, self._generator).to(device)

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
        predictions: list[torch.Tensor] = []
        for pieces in self._groups:
            predictions += yield from together([self._predict(piece, scaled, t) for piece in pieces])
        joined = torch.cat(predictions)
        of_windows = joined.view(len(self._windows), -1, *joined.shape[1:]).unbind()
        prediction = average(of_windows, self._windows, self.latents)
        self.latents = self._schedule.step(prediction, t, self.latents, self._generator)
        if self._keep_passes:
            self._passes.append(self.latents)
        self._steps_done += 1

    def close(self) -> None:
        """Release the bindings. Called once: by the loop, or by the maker of a job that never joins a loop."""
        for bound in self._bound:
            bound.release()

    def _predict(
        self, piece: _Piece, scaled: torch.Tensor, t: torch.Tensor
    ) -> Generator[list[Ask], list[Outputs], torch.Tensor]:
        """The guided predictions [latents, 4, h, w] of a piece."""
        part = piece.part
        latents = part.window.crop(scaled[piece.latents])
        residuals = yield from part.controlnets.residuals(latents, t, self._steps_done, self.steps)
        outputs = yield self._unet_asks(part, latents, t, residuals)
        return guide(_stacked(outputs), self._guidance_scale)

    def _unet_asks(
        self, part: _Part, scaled: torch.Tensor, t: torch.Tensor, residuals: Sequence[Residuals | None]
    ) -> list[Ask]:
        """For each latent of `scaled` [N, 4, h, w], one row for each branch of the prompt."""
        branches = part.prompt.branches
        return [
            Ask(
                self.unet,
                Row(
                    latent=scaled[index // branches],
                    t=t.float(),
                    timestep_cond=self._timestep_cond,
                    residuals=row_residuals,
                    concat=part.concat,
                    **part.image_prompts.fields(index % branches),
                    **part.prompt.fields(index % branches),
                ).inputs(),
            )
            for index, row_residuals in enumerate(residuals)
        ]


def _part(plan: Plan, window: Window, conditions: Conditions, controlnets: Sequence[ControlNet]) -> _Part:
    """Each spatial input of a row is cropped here, once for the whole job."""
    prompt, scale = Prompt(conditions.text), plan.checkpoint.vae_scale_factor
    if conditions.pooled.shape[-1]:
        place = (scale * window.top, scale * window.left)
        prompt = Prompt(conditions.text, conditions.pooled, size_ids(plan.padded_height, plan.padded_width, *place))
    cropped = [network.crop(window, scale) for network in controlnets]
    image_prompts = conditions.image_prompts
    if conditions.ip_masks is not None:
        masks = conditions.ip_masks.resize(window, scale, plan.unet.config)
        image_prompts = replace(image_prompts, masks=masks.to(image_prompts.bias.device))
    return _Part(
        window,
        prompt,
        ControlNets(cropped, prompt, guess_mode=plan.request.controlnet_guess_mode),
        image_prompts,
        window.crop(conditions.concat) if len(conditions.concat) else None,
    )


def _groups(parts: Sequence[_Part], num_images: int, size: int | None) -> list[Sequence[_Piece]]:
    """The pieces whose rows are asked for together: each group has `size` latents, window by window. None: all."""
    count = len(parts) * num_images
    size = size or count
    return [_pieces(parts, num_images, start, min(start + size, count)) for start in range(0, count, size)]


def _pieces(parts: Sequence[_Part], num_images: int, start: int, stop: int) -> list[_Piece]:
    """The latents `start` to `stop` of all windows."""
    pieces = []
    for place in range(start // num_images, -(-stop // num_images)):
        first = place * num_images
        pieces.append(_Piece(parts[place], slice(max(start - first, 0), min(stop - first, num_images))))
    return pieces


def _stacked(outputs: Sequence[Outputs]) -> torch.Tensor:
    """The UNet's predictions [rows, 4, h, w]."""
    predictions = []
    for output in outputs:
        prediction = output["prediction"]
        assert isinstance(prediction, torch.Tensor)
        predictions.append(prediction)
    return torch.stack(predictions)
