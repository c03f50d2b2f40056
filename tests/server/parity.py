"""Parity with diffusers through the running server: the same weights, seed and schedule give the same latents.

Each row changes one thing of a case; and the reference itself must move by ten times the tolerance when that one
thing is taken back, so that a field that the server ignores cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image

from lorikeet import Client, Job
from tests.reference import ReferenceLora, ReferenceRequest, reference, relative_error

TOLERANCE = 1e-3  # of the latents' standard deviation
KINDS = ("sd15", "sd2", "sdxl")
Latents = NDArray[np.float32]
Report = Callable[[str, object], None]
_EXPECTED: dict[object, Latents] = {}


@dataclass(frozen=True)
class Case:
    """What the oracle is asked, and what of the question the server is told in other words.

    `unet` is a UNet's folder in place of the checkpoint's own; `served` are fields of the API that mean the same.
    """

    request: ReferenceRequest
    unet: Path | None = None
    served: dict[str, Any] = field(default_factory=dict)


Change = Callable[[Case], Case]


@cache
def picture(seed: int = 0) -> Image.Image:
    """A picture with large and small shapes, 96x64."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC)


def base(tiny: Path, kind: str) -> Case:
    """The case that all rows start from."""
    request = ReferenceRequest(
        model=tiny / kind,
        prompt="a red fish under the sun",
        negative_prompt="a boat",
        image=picture(),
        noise_strength=0.6,
        seed=7,
        num_inference_steps=5,
        guidance_scale=6.0,
        scheduler="Euler",
    )
    return Case(request)


def fields(**values: Any) -> Change:
    """Other values of the request's fields."""
    return lambda case: replace(case, request=replace(case.request, **values))


def loras(*names: str, scale: float = 0.8) -> Change:
    """Files of peft's and of Kohya's names, for all networks: the first at `scale`, the second at half of it."""

    def change(case: Case) -> Case:
        model = case.request.model
        folder = model.parent / "loras" / model.name
        worn = [ReferenceLora(folder / f"{name}.safetensors", scale / (i + 1)) for i, name in enumerate(names)]
        return replace(case, request=replace(case.request, loras=tuple(worn)))

    return change


TEXT_TO_IMAGE = fields(image=None, width=64, height=96)


def check(client: Client, case: Case, changes: Sequence[Change], record_property: Report) -> None:
    """The server's answer to `case` after all changes equals the oracle's, which the last change moved.

    The figure of each row is in the report that `make test ARGS=--junitxml=out/tests.xml` writes.
    """
    before = reduce(lambda made, change: change(made), changes[:-1], case)
    after = changes[-1](before)
    job = submit(client, after)  # the server is at work while the oracle is
    expected, moved = expect(after), expect(before)
    error = relative_error(latents(job), expected)
    record_property("relative_error", error)
    assert error < TOLERANCE
    assert moves(moved, expected), "the last change does not move the reference: this row proves nothing"


def moves(before: Latents, after: Latents) -> bool:
    """Whether two references differ by ten times the tolerance; pictures of another number or size do."""
    if before.shape[2:] != after.shape[2:]:
        return True
    if before.shape != after.shape:
        # More pictures: the further ones must differ from the first.
        return relative_error(after[1:], after[:1]) > 10 * TOLERANCE
    return relative_error(before, after) > 10 * TOLERANCE


def expect(case: Case) -> Latents:
    """The oracle's latents; several rows share one. (Pictures have no hash.)"""
    request = case.request
    key = (replace(request, image=None), request.image and request.image.tobytes(), case.unet)
    if key not in _EXPECTED:
        _EXPECTED[key] = reference(request, _unet(case.unet) if case.unet else None).latents
    return _EXPECTED[key]


@cache
def _unet(folder: Path) -> torch.nn.Module:
    unet: torch.nn.Module = UNet2DConditionModel.from_pretrained(folder)
    return unet


def submit(client: Client, case: Case) -> Job:
    """Ask the server."""
    request = case.request
    asked: dict[str, Any] = {
        "model_name": str(request.model),
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "image": request.image,
        "noise_strength": request.noise_strength,
        "loras": [{"path": str(lora.path), "scale": lora.scale} for lora in request.loras],
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "scheduler": request.scheduler,
        "num_images": request.num_images,
        "clip_skip": request.clip_skip,
        "eta": request.eta,
        "timesteps": _schedule(request.timesteps),
        "sigmas": _schedule(request.sigmas),
        "prediction_type": request.prediction_type,
        "rescale_betas_snr_zero": request.rescale_betas_snr_zero,
        "image_size": {"width": request.width, "height": request.height} if request.image is None else None,
        "unet_name": str(case.unet) if case.unet else None,
        "debug_latents": True,
    }
    return client.submit(**asked | case.served)


def latents(job: Job) -> Latents:
    """The server's latents."""
    result = job.result()
    assert result.latents is not None
    assert len(result.images) == len(result.latents)
    return result.latents


def _schedule(steps: Sequence[float]) -> dict[str, Any]:
    return {"method": "array", "array": list(steps)} if steps else {"method": "default"}
