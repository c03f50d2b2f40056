"""One request through diffusers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import PNDMScheduler
from numpy.typing import NDArray
from PIL import Image

from tests.reference.clip_skip import flattened_text_model
from tests.reference.pipelines import pipeline
from tests.reference.request import ReferenceRequest
from tests.reference.schedulers import make_scheduler


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


def reference(request: ReferenceRequest) -> ReferenceResult:
    """Run `request`, so that `num_inference_steps` steps are really run.

    PNDM calls the UNet once more than that; of any other scheduler it is asserted that it does not.
    """
    with (
        torch.no_grad(),
        pipeline(request.model, request.loras, image_to_image=request.image is not None) as pipe,
    ):
        schedule_steps, strength = _schedule(request, pipe.scheduler.config.num_train_timesteps)
        pipe.scheduler = make_scheduler(pipe.scheduler, request.scheduler, schedule_steps)
        trace = _Trace()
        arguments = _arguments(request, schedule_steps, strength)
        with flattened_text_model(pipe):
            latents = pipe(**arguments, callback_on_step_end=trace, output_type="latent").images
        calls = request.num_inference_steps + isinstance(pipe.scheduler, PNDMScheduler)
        if len(trace.latents) != calls:
            raise AssertionError(f"diffusers ran {len(trace.latents)} steps, not {calls}")
        return ReferenceResult(
            latents=latents.numpy(),
            step_latents=np.stack(trace.latents),
            timesteps=np.array(trace.timesteps),
            images=_decode(pipe, latents),
        )


def _schedule(request: ReferenceRequest, longest: int) -> tuple[int, float]:
    """The length of the schedule, and the part of it that diffusers must be told to run."""
    steps = request.num_inference_steps
    if request.image is None:
        return steps, 1.0
    length = min(int(steps / request.noise_strength), longest)
    return length, min((steps + 0.5) / length, 1.0)


def _arguments(request: ReferenceRequest, schedule_steps: int, strength: float) -> dict[str, Any]:
    size = {"width": request.width, "height": request.height}
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": schedule_steps,
        "guidance_scale": request.guidance_scale,
        "generator": torch.Generator().manual_seed(request.seed),
        "num_images_per_prompt": request.num_images,
        "eta": request.eta,
        "clip_skip": request.clip_skip or None,
        **(size if request.image is None else {"image": request.image, "strength": strength}),
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
