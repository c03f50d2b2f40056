"""From a checkpoint's files to the latents: every form of a checkpoint ends where diffusers' pipeline ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.folder import read_unet_folder
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.conditioning.guidance import guidance_embedding
from runtime.files.located import Folder, SingleFile
from runtime.jobs.job_table import JobRef, JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stages.call import Array
from runtime.stages.denoiser.stage import DenoiserStage
from runtime.stages.image_encoder.stage import ImageEncoderStage
from runtime.stages.text_encoder import TextEncoderStage
from runtime.stages.vae.stage import VaeEncoderStage
from tests.reference import ReferenceRequest, reference, relative_error
from tests.unit.runtime.plans import make_plan, run_stage
from tests.unit.runtime.tiny_checkpoints import digest

PROMPT, NEGATIVE = "a red bird at night", "blurry"
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
FORMS = [
    ("sd15", "sd15"),
    ("sd15", "single/sd15.safetensors"),
    ("sd15", "single/sd15-diffusers.safetensors"),
    ("sd2", "sd2"),
    ("sd2", "single/sd2.safetensors"),
    ("sdxl", "single/sdxl.safetensors"),
]


def _checkpoint(tiny: Path, form: str) -> Checkpoint:
    path = tiny / form
    return read_checkpoint(SingleFile(digest(path), tiny) if path.is_file() else Folder(path, tiny), digest)


def _latents(settings: Settings, job_table: JobTable, plan: Plan) -> Array:
    text = run_stage(TextEncoderStage(settings, job_table), plan).tensors
    none = np.zeros(0, np.uint8)
    prompts = run_stage(ImageEncoderStage(settings, job_table), plan, {"IMAGE_PROMPTS": none}).tensors
    picture = run_stage(VaeEncoderStage(settings, job_table), plan, {"PICTURES": PICTURE.reshape(-1)}).tensors
    inputs = {**text, **prompts, **picture, "CONTROLS": none}
    return run_stage(DenoiserStage(settings, job_table), plan, inputs).tensors["LATENTS"]


def _request(model: Path, **fields: Any) -> ReferenceRequest:
    return ReferenceRequest(model, PROMPT, NEGATIVE, image=Image.fromarray(PICTURE), seed=5, **fields)


def _plan(checkpoint: Checkpoint, job: JobRef, **fields: Any) -> Plan:
    return make_plan(checkpoint, job, prompt=PROMPT, negative_prompt=NEGATIVE, image_url="tensor:0", **fields)


@pytest.mark.parametrize(("model", "form"), FORMS)
@pytest.mark.parametrize("scheduler", [None, "Euler"])
def test_every_form_ends_where_diffusers_ends(
    tiny: Path, settings: Settings, job_table: JobTable, job: JobRef, model: str, form: str, scheduler: str | None
) -> None:
    fields = {"num_inference_steps": 3, "scheduler": scheduler}
    found = _latents(settings, job_table, _plan(_checkpoint(tiny, form), job, **fields))
    assert relative_error(found, reference(_request(tiny / model, **fields)).latents) < 1e-3


def test_what_is_predicted_makes_a_difference(tiny: Path, settings: Settings, job_table: JobTable, job: JobRef) -> None:
    checkpoint = _checkpoint(tiny, "sd2")
    wrong = checkpoint.model_copy(update={"scheduler": checkpoint.scheduler | {"prediction_type": "epsilon"}})
    found = _latents(settings, job_table, _plan(wrong, job, num_inference_steps=3))
    assert relative_error(found, reference(_request(tiny / "sd2", num_inference_steps=3)).latents) > 0.01


@pytest.fixture
def lcm(tiny: Path) -> Component:
    return read_unet_folder(Folder(tiny / "lcm", tiny), digest)


@pytest.mark.parametrize("guidance_scale", [7.5, 1.0, 0.0])
def test_a_unet_distilled_with_guidance_ends_where_diffusers_ends(
    tiny: Path,
    settings: Settings,
    job_table: JobTable,
    job: JobRef,
    sd15: Checkpoint,
    lcm: Component,
    guidance_scale: float,
) -> None:
    fields: dict[str, Any] = {"num_inference_steps": 3, "scheduler": "LCM", "guidance_scale": guidance_scale}
    plan = _plan(sd15.model_copy(update={"unet": lcm}), job, **fields)
    assert not plan.guided
    found = _latents(settings, job_table, plan)
    unet = UNet2DConditionModel.from_pretrained(tiny / "lcm" / "unet")
    assert relative_error(found, reference(_request(tiny / "sd15", **fields), unet).latents) < 1e-3
    other = reference(_request(tiny / "sd15", **fields | {"guidance_scale": 3.0}), unet).latents
    assert relative_error(found, other) > 0.01


@pytest.mark.parametrize("width", [4, 5, 12, 256])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 6.5, 19.0])
def test_the_embedding_of_the_guidance_scale_is_that_of_diffusers(tiny: Path, width: int, scale: float) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    expected = pipe.get_guidance_scale_embedding(torch.tensor(scale).repeat(1), embedding_dim=width)[0]
    torch.testing.assert_close(guidance_embedding(scale, width), expected, rtol=1e-6, atol=1e-6)
