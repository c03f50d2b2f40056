"""The text and VAE stages, compared with diffusers' pipelines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobRef, JobTable
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, StageError
from runtime.stages.text_encoder import TextEncoderStage
from runtime.stages.vae.stage import VaeDecoderStage, VaeEncoderStage
from tests.reference.clip_skip import flattened_text_model
from tests.unit.runtime.engines import assert_near, noise
from tests.unit.runtime.plans import make_plan, run_stage
from tests.unit.runtime.tiny_checkpoints import read_checkpoint


@pytest.mark.parametrize(("name", "kind"), [("sd15", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)])
@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_prompts_are_embedded_as_by_diffusers(
    request: pytest.FixtureRequest,
    tiny: Path,
    settings: Settings,
    job_table: JobTable,
    job: JobRef,
    name: str,
    kind: Any,
    guidance_scale: float,
    clip_skip: int,
) -> None:
    prompt, negative = "a photo of a cat, " * 40, "blurry dog"
    pipe, guided = kind.from_pretrained(tiny / name), guidance_scale > 1
    fields: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative, "guidance_scale": guidance_scale}
    plan = make_plan(request.getfixturevalue(name), job, clip_skip=clip_skip, **fields)
    found = run_stage(TextEncoderStage(settings, job_table), plan).tensors

    def encode(clip_skip: int) -> Any:
        with torch.no_grad(), flattened_text_model(pipe):
            return pipe.encode_prompt(
                prompt=prompt,
                negative_prompt=negative,
                device="cpu",
                num_images_per_prompt=1,
                do_classifier_free_guidance=guided,
                clip_skip=clip_skip or None,
            )

    expected = encode(clip_skip)
    assert torch.allclose(expected[0], encode(0)[0], atol=0.01) == (clip_skip == 0)
    rows = torch.cat([expected[1], expected[0]]) if guided else expected[0]
    assert_near(torch.from_numpy(found["PROMPT_EMBEDS"]), rows, 1e-4)
    if name == "sdxl":
        pooled = torch.cat([expected[3], expected[2]]) if guided else expected[2]
        assert_near(torch.from_numpy(found["POOLED_EMBEDS"]), pooled, 1e-4)
    else:
        assert found["POOLED_EMBEDS"].shape == (1 + guided, 0)


def test_the_vae_encoder_pads_and_does_not_sample(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    plan = make_plan(sd15, job, size=66, image_url="tensor:0")
    pixels = np.random.default_rng(0).integers(0, 256, (66, 66, 3), np.uint8)
    found = run_stage(VaeEncoderStage(settings, job_table), plan, {"PICTURES": pixels.reshape(-1)}).tensors
    padded = torch.from_numpy(np.pad(pixels, ((0, 6), (0, 6), (0, 0)), "edge")).permute(2, 0, 1)[None] / 255 * 2 - 1
    with torch.no_grad():
        expected = AutoencoderKL.from_pretrained(tiny / "sd15" / "vae").encode(padded).latent_dist
    assert_near(torch.from_numpy(found["LATENT_MEAN"]), expected.mean, 1e-4)
    assert_near(torch.from_numpy(found["LATENT_STD"]), expected.std, 1e-4)


def test_without_a_picture_the_vae_encoder_answers_with_none(
    settings: Settings, job_table: JobTable, plan: Plan
) -> None:
    found = run_stage(VaeEncoderStage(settings, job_table), plan).tensors
    assert found["LATENT_MEAN"].shape == found["LATENT_STD"].shape == (0, 4, 8, 8)


def test_the_vae_decoder_cuts_what_was_padded(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    plan = make_plan(sd15, job, size=66, num_images=2)
    latents = noise(2, 4, 9, 9)
    found = run_stage(VaeDecoderStage(settings, job_table), plan, {"LATENTS": latents.numpy()}).tensors["PIXELS"]
    pipe = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / 0.18215).sample
    expected = [np.asarray(image)[:66, :66] for image in pipe.image_processor.postprocess(decoded)]
    assert found.shape == (2, 66, 66, 3)
    # Two pictures at once are not computed as one and one are: a rounding may fall the other way.
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1


def _prompted(folder: Path, settings: Settings, job_table: JobTable, job: JobRef) -> StageError:
    return run_stage(TextEncoderStage(settings, job_table), make_plan(read_checkpoint(folder), job)).error


@pytest.mark.parametrize("length", ["long", 0, -3, 20.5])
def test_a_tokenizer_of_no_length_is_the_requests_fault(
    tiny: Path, tmp_path: Path, settings: Settings, job_table: JobTable, job: JobRef, length: object
) -> None:
    folder = Path(shutil.copytree(tiny / "sd15", tmp_path / "checkpoint"))
    path = folder / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    error = _prompted(folder, settings, job_table, job)
    assert isinstance(error, InvalidArgument)
    assert "model_name: its tokenizer cannot be used" in str(error)


def test_tokens_that_the_text_encoder_lacks_are_the_requests_fault(
    tiny: Path, tmp_path: Path, settings: Settings, job_table: JobTable, job: JobRef
) -> None:
    folder = Path(shutil.copytree(tiny / "sd15", tmp_path / "checkpoint"))
    (folder / "tokenizer/added_tokens.json").write_text('{"bird": 123456}')
    error = _prompted(folder, settings, job_table, job)
    assert isinstance(error, InvalidArgument)
    assert "its text encoder lacks tokens" in str(error)


def test_a_tokenizer_that_changed_is_read_again(
    tiny: Path, tmp_path: Path, settings: Settings, job_table: JobTable, job: JobRef
) -> None:
    folder = Path(shutil.copytree(tiny / "sd15", tmp_path / "checkpoint"))

    def embeddings() -> Any:
        plan = make_plan(read_checkpoint(folder), job)
        return run_stage(TextEncoderStage(settings, job_table), plan).tensors["PROMPT_EMBEDS"]

    before = embeddings()
    path = folder / "tokenizer/vocab.json"
    vocabulary = json.loads(path.read_text())
    vocabulary["bird</w>"], vocabulary["a</w>"] = vocabulary["a</w>"], vocabulary["bird</w>"]
    path.write_text(json.dumps(vocabulary))
    assert not np.array_equal(embeddings(), before)
