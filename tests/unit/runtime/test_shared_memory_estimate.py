"""The shared memory that a request's tensors take in each stage's region."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from lorikeet.protocol import tensors
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.settings import ROOT
from runtime.shared_memory import REGION_BYTES
from runtime.stages.prepare.shared_memory_estimate import STAGE_TENSORS, StageBytes, growth, stage_bytes
from tests.unit.runtime.plans import make_plan

_UNCOUNTED = {"PLAN", "REPORT", "SEAL", tensors.REQUEST, tensors.FILES, tensors.IMAGE}


def _bytes(
    checkpoint: Checkpoint, *, inline: bool = False, parameters: int = 0, **fields: Any
) -> dict[str, StageBytes]:
    return stage_bytes(make_plan(checkpoint, **fields), inline=inline, parameters=parameters)


def test_every_tensor_of_the_ensemble_is_counted() -> None:
    text = (ROOT / "model_repository" / "lora_image_to_image" / "config.pbtxt").read_text()
    steps = text_format.Parse(text, ModelConfig()).ensemble_scheduling.step
    found = {step.model_name: (set(step.input_map) - _UNCOUNTED, set(step.output_map) - _UNCOUNTED) for step in steps}
    assert found == {stage: (set(taken), set(answered)) for stage, (taken, answered) in STAGE_TENSORS.items()}


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ({"num_inference_steps": 5}, 5),
        ({"timesteps": {"method": "array", "array": [*range(999, 0, -9)]}, "scheduler": "Euler"}, 111),
        ({"sigmas": {"method": "array", "array": [14.0, 5.0, 1.0, 0.0]}, "scheduler": "Euler"}, 3),
    ],
    ids=["num_inference_steps", "timesteps", "sigmas"],
)
def test_the_tensors_have_at_least_the_bytes_that_the_stages_write(
    sdxl: Checkpoint, schedule: dict[str, Any], steps: int
) -> None:
    size, count = 256, 2
    fields: dict[str, Any] = {
        "num_images": count,
        "noise_strength": 1.0,
        "debug_latents": True,
        "debug_per_pass_latents": True,
        **schedule,
    }
    found = _bytes(sdxl, size=size, image_url="tensor:0", **fields)
    picture, latent = 3 * size * size, 4 * 4 * (size // sdxl.vae_scale_factor) ** 2
    embeds = 4 * 2 * 77 * sdxl.unet.config["cross_attention_dim"]
    passes = steps * count * latent
    at_least = {
        "prepare": (0, picture),
        "text_encoder": (0, embeds),
        "vae_encoder": (picture, 2 * latent),
        "denoiser": (embeds + 2 * latent, count * latent + passes),
        "vae_decoder": (count * latent, count * picture),
        "finish": (count * picture + count * latent + passes, count * picture + count * latent + passes),
    }
    for stage, (taken, answered) in at_least.items():
        assert taken <= found[stage].taken < 1.1 * taken + 100_000, stage
        assert answered <= found[stage].answered < 1.1 * answered + 100_000, stage


def test_inline_pictures_and_parameters_are_counted(sd15: Checkpoint) -> None:
    plain, inline = _bytes(sd15, size=256), _bytes(sd15, size=256, inline=True)
    assert inline["finish"].answered - plain["finish"].answered >= 3 * 256 * 256 * 4 / 3
    long = _bytes(sd15, size=256, parameters=10_000)
    assert all(long[stage].taken - plain[stage].taken == 10_000 for stage in STAGE_TENSORS)


def test_small_requests_need_no_growth(sd15: Checkpoint) -> None:
    assert growth([_bytes(sd15, size=64, image_url="tensor:0")] * 64, {}) == 0


def test_the_need_does_not_grow_with_more_than_two_requests(sdxl: Checkpoint) -> None:
    request = _bytes(sdxl, size=1024, image_url="tensor:0")
    assert growth([request], {}) < growth([request] * 2, {}) == growth([request] * 64, {})


def test_a_docker_container_has_enough_for_any_number_of_usual_requests(sdxl: Checkpoint) -> None:
    """64 MiB without --shm-size, less the regions at start and a reserve."""
    assert growth([_bytes(sdxl, size=1024, image_url="tensor:0")] * 64, {}) < (64 - 7 - 4) << 20


def test_a_docker_container_has_enough_for_a_weighted_prompt_of_800_characters(sdxl: Checkpoint) -> None:
    """At the widths of the published SDXL."""
    widths = (768, 1280)
    encoders = [
        encoder.model_copy(update={"config": encoder.config | {"hidden_size": width}})
        for encoder, width in zip(sdxl.text_encoders, widths, strict=True)
    ]
    checkpoint = sdxl.model_copy(update={"text_encoders": tuple(encoders)})
    fields: dict[str, Any] = {"image_url": "tensor:0", "prompt_weighting": True}
    request = _bytes(checkpoint, size=1024, prompt="a harbour, " * 73, **fields)
    assert request["text_encoder"].answered > 4 * 2 * 77 * 8 * sum(widths)
    assert growth([request], {}) < (64 - 7 - 4) << 20


def test_a_region_that_has_grown_is_used_again(sdxl: Checkpoint) -> None:
    request = _bytes(sdxl, size=512, num_images=4, image_url="tensor:0")
    ample = dict.fromkeys(STAGE_TENSORS, 1 << 40)
    alone = {stage: growth([request], ample | {stage: REGION_BYTES}) for stage in STAGE_TENSORS}
    grown = {stage: REGION_BYTES + more for stage, more in alone.items()}
    assert growth([request], {}) == sum(alone.values())
    assert growth([request], grown) == 0
    assert growth([request], grown | {"finish": REGION_BYTES}) == alone["finish"] > 0


@pytest.mark.parametrize("lacking", [1, REGION_BYTES])
def test_growth_of_a_region_that_nearly_fits_is_at_most_a_tensor_more(lacking: int) -> None:
    """The tensor that does not fit makes the region grow by its whole size."""
    one = StageBytes(5_000_000, 4_000_000, 3_000_000)
    requests = [dict.fromkeys(STAGE_TENSORS, StageBytes(0, 0, 0)) | {"finish": one}]
    used = one.taken + one.answered + (256 << 10)
    assert growth(requests, {"finish": used}) == 0
    assert growth(requests, {"finish": used - lacking}) == lacking + one.largest + REGION_BYTES
