"""One request through diffusers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import PNDMScheduler
from numpy.typing import NDArray
from PIL import Image

from tests.reference.clip_skip import flattened_text_model
from tests.reference.controlnets import controlnet_arguments, loaded_controlnets
from tests.reference.instant_id import image_tokens
from tests.reference.ip_adapters import loaded_ip_adapters
from tests.reference.multidiffusion import multidiffusion
from tests.reference.pipelines import pipeline
from tests.reference.prompts import prompt_arguments
from tests.reference.request import ReferenceRequest
from tests.reference.schedulers import longest_schedule, make_room, make_scheduler


@dataclass(frozen=True)
class ReferenceResult:
    """What diffusers made.

    `latents` [N, 4, h, w] are the last of `step_latents` [calls, N, 4, h, w], which are those after each call
    of the UNet, made at `timesteps` [calls]; `images` are the N decoded.
    """

    latents: NDArray[np.float32]
    step_latents: NDArray[np.float32]
    timesteps: NDArray[np.float64]
    images: tuple[Image.Image, ...]


def reference(request: ReferenceRequest, unet: torch.nn.Module | None = None) -> ReferenceResult:
    """Run `request`, so that `num_inference_steps` steps are really run.

    PNDM calls the UNet once more than that; of any other scheduler it is asserted that it does not. `unet` is taken
    in place of the checkpoint's.
    """
    is_edit = request.image is not None
    with (
        torch.no_grad(),
        loaded_controlnets(request.controlnets) as controlnets,
        pipeline(
            request.model,
            request.loras,
            image_to_image=is_edit,
            unet=unet,
            controlnets=controlnets,
            embeddings=request.embeddings,
        ) as pipe,
    ):
        pipe.scheduler = make_scheduler(pipe.scheduler, request)
        arguments = _arguments(request, pipe)
        trace = _Trace()
        with (
            flattened_text_model(pipe),
            loaded_ip_adapters(pipe, request) as image_prompts,
            image_tokens(pipe, request, image_prompts),
            multidiffusion(pipe, request.tiles, request.image),
        ):
            latents = pipe(**arguments, **image_prompts, callback_on_step_end=trace, output_type="latent").images
        calls = _steps(request) + isinstance(pipe.scheduler, PNDMScheduler)
        if len(trace.latents) != calls:
            raise AssertionError(f"diffusers ran {len(trace.latents)} steps, not {calls}")
        return ReferenceResult(
            latents=latents.numpy(),
            step_latents=np.stack(trace.latents),
            timesteps=np.array(trace.timesteps),
            images=_decode(pipe, latents),
        )


def _steps(request: ReferenceRequest) -> int:
    """How many steps are to be run."""
    custom = len(request.timesteps) or max(len(request.sigmas) - 1, 0)
    if not custom:
        return request.num_inference_steps
    return custom if request.image is None else int(custom * request.noise_strength)


def _schedule(request: ReferenceRequest, longest: int) -> tuple[int, float]:
    """The length of the schedule, and the part of it that diffusers must be told to run."""
    steps = request.num_inference_steps
    if request.image is None:
        return steps, 1.0
    length = min(int(steps / request.noise_strength), longest)
    return length, min((steps + 0.5) / length, 1.0)


def _arguments(request: ReferenceRequest, pipe: Any) -> dict[str, Any]:
    scheduler = pipe.scheduler
    schedule_steps, strength = _schedule(request, longest_schedule(scheduler))
    make_room(scheduler, schedule_steps)
    custom = {"timesteps": list(request.timesteps) or None, "sigmas": list(request.sigmas) or None}
    if any(custom.values()):
        strength = request.noise_strength
    size = {"width": request.width, "height": request.height}
    return {
        **prompt_arguments(pipe, request),
        "num_inference_steps": schedule_steps,
        "guidance_scale": request.guidance_scale,
        "generator": torch.Generator().manual_seed(request.seed),
        "num_images_per_prompt": request.num_images,
        "eta": request.eta,
        **custom,
        **(size if request.image is None else {"image": request.image, "strength": strength}),
        **controlnet_arguments(request),
    }


class _Trace:
    """A callback of diffusers that keeps what it is shown."""

    def __init__(self) -> None:
        self.latents: list[NDArray[np.float32]] = []
        self.timesteps: list[float] = []

    def __call__(self, _pipe: Any, _step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        self.latents.append(tensors["latents"].numpy().copy())
        self.timesteps.append(float(timestep))
        return {}


def _decode(pipe: Any, latents: torch.Tensor) -> tuple[Image.Image, ...]:
    """The pipelines' own last lines; one image at a time, as the service does."""
    pixels = torch.cat([pipe.vae.decode(one[None] / pipe.vae.config.scaling_factor).sample for one in latents])
    return tuple(pipe.image_processor.postprocess(pixels, output_type="pil"))
