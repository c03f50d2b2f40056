"""Parity with diffusers through the running server: the same weights, seed and schedule give the same latents.

Each row of the table changes one thing of a base case, and is compared with unmodified diffusers pipelines; and the
reference itself must move by ten times the tolerance when that one thing is taken back, so that a field that the
server ignores cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lorikeet import Client
from tests.reference import ReferenceLora, ReferenceRequest, reference, relative_error

EXPECTED: dict[object, NDArray[np.float32]] = {}
TOLERANCE = 1e-3  # of the latents' standard deviation
Change = Callable[[ReferenceRequest], ReferenceRequest]


@cache
def picture(seed: int = 0) -> Image.Image:
    """A picture with large and small shapes, 96x64."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC)


def base(tiny: Path, kind: str) -> ReferenceRequest:
    return ReferenceRequest(
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


def loras(*names: str, scale: float = 0.8) -> Change:
    """Peft's and Kohya's names, UNet and text encoders."""

    def change(request: ReferenceRequest) -> ReferenceRequest:
        folder = request.model.parent / "loras" / request.model.name
        return replace(
            request,
            loras=tuple(ReferenceLora(folder / f"{n}.safetensors", scale / (i + 1)) for i, n in enumerate(names)),
        )

    return change


def fields(**values: Any) -> Change:
    return lambda request: replace(request, **values)


TEXT_TO_IMAGE = fields(image=None, width=64, height=96)
TABLE: dict[str, tuple[Change, ...]] = {
    "prompt": (fields(prompt="a green house"),),
    "negative_prompt": (fields(negative_prompt="a green house"),),
    "image": (fields(image=picture(1)),),
    "text_to_image": (TEXT_TO_IMAGE,),
    "noise_strength_1": (fields(noise_strength=1.0),),
    "noise_strength_low": (fields(noise_strength=0.1),),
    "seed": (fields(seed=8),),
    "num_inference_steps": (fields(num_inference_steps=9),),
    "guidance_off": (fields(guidance_scale=1.0),),
    "guidance_scale": (fields(guidance_scale=12.0),),
    "own_scheduler": (fields(scheduler="DPM++ 2M Karras"), fields(scheduler=None)),
    "dpmpp_2m_karras": (fields(scheduler="DPM++ 2M Karras"),),
    "ddim": (fields(scheduler="DDIM"),),
    "num_images_2": (fields(num_images=2),),
    "peft": (loras("peft"),),
    "kohya": (loras("kohya"),),
    "two_loras": (loras("peft", "kohya"),),
    "two_loras_negative": (loras("kohya", "peft", scale=-0.7),),
    "two_loras_text_to_image": (TEXT_TO_IMAGE, loras("peft", "kohya")),
    "two_loras_guidance_off": (fields(guidance_scale=0.0), loras("peft", "kohya")),
    "two_loras_num_images_2": (fields(num_images=2), loras("peft", "kohya")),
    "text_to_image_num_images_2": (TEXT_TO_IMAGE, fields(num_images=2)),
    "text_to_image_ddim": (TEXT_TO_IMAGE, fields(scheduler="DDIM")),
    "text_to_image_dpmpp": (TEXT_TO_IMAGE, fields(scheduler="DPM++ 2M Karras")),
    "text_to_image_own": (TEXT_TO_IMAGE, fields(scheduler="DPM++ 2M Karras"), fields(scheduler=None)),
}


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("name", TABLE)
def test_latents_equal_those_of_diffusers(
    client: Client, tiny: Path, kind: str, name: str, record_property: Callable[[str, object], None]
) -> None:
    """The figure of each row is in the report that `make test ARGS=--junitxml=out/tests.xml` writes."""
    *earlier, last = TABLE[name]
    before = base(tiny, kind)
    for change in earlier:
        before = change(before)
    request = last(before)
    expected = expect(request)
    error = relative_error(generate(client, request), expected)
    record_property("relative_error", error)
    assert error < TOLERANCE
    assert moves(expect(before), expected), f"{name} does not move the reference: its row proves nothing"


def moves(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """Whether two references differ by ten times the tolerance; pictures of another number or size do."""
    if before.shape[2:] != after.shape[2:]:
        return True
    if before.shape != after.shape:
        # More pictures: the further ones must differ from the first.
        return relative_error(after[1:], after[:1]) > 10 * TOLERANCE
    return relative_error(before, after) > 10 * TOLERANCE


def expect(request: ReferenceRequest) -> NDArray[np.float32]:
    """The reference's latents; several rows share one. (Pictures have no hash.)"""
    key = (replace(request, image=None), request.image and request.image.tobytes())
    if key not in EXPECTED:
        EXPECTED[key] = reference(request).latents
    return EXPECTED[key]


def generate(client: Client, request: ReferenceRequest) -> NDArray[np.float32]:
    size = {"width": request.width, "height": request.height} if request.image is None else None
    result = client.image_to_image(
        model_name=str(request.model),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        image=request.image,
        noise_strength=request.noise_strength,
        loras=[{"path": str(lora.path), "scale": lora.scale} for lora in request.loras],
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        scheduler=request.scheduler,
        num_images=request.num_images,
        debug_latents=True,
        image_size=size,
    )
    assert result.latents is not None
    assert len(result.images) == request.num_images
    return result.latents
