"""`prepare`: a bad request is refused before anything is fetched; the message names the field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.jobs.job_table import JobTable
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare import clip_skip, schedule
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.plans import make_call, text_tensor
from tests.unit.runtime.prepare_requests import ask, assert_refused, make_png
from tests.unit.runtime.web import Web


def test_two_pictures_for_one_are_refused(stage: PrepareStage) -> None:
    assert_refused(ask(stage, [make_png()], image=make_png(), image_url="tensor:0"), "image_url: give either")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": None}, "prompt: "),
        ({"num_inference_steps": 151}, "num_inference_steps: "),
        ({"loras": [{"scale": 1}]}, "loras[0].path: "),
        ({"model_name": "missing"}, "model_name: missing"),
        ({"model_name": "loras"}, "model_name: its file unet/config.json is missing"),
        ({"model_name": "everything"}, "model_name: its file vae/config.json is missing"),
        ({"loras": [{"path": "sd15/unet/config.json"}]}, "loras[0].path: not a readable .safetensors file"),
        ({"loras": [{"path": "loras/sdxl/peft.safetensors"}]}, "loras[0].path: "),
        ({"loras": [{"path": "loras/sd15/peft.safetensors"}, {"path": "../x"}]}, "loras[1].path: "),
        ({"loras": [{"path": "loras/sd15/peft.safetensors"}] * 101}, "loras: at most 100"),
        ({"loras": [{"path": "loras/sd15/peft.safetensors", "scale": 1e39}]}, "loras[0].scale: 1e+39 times alpha"),
        ({"image_url": "tensor:0"}, "image_url: tensor:0: expected an index from 0; FILES has 0 files"),
        ({"image_url": "data:,nothing"}, "image_url: not a picture"),
        ({"image_size": {"width": 63, "height": 64}}, "image_size: 63x64"),
        ({"image_size": {"width": 14142, "height": 14142}}, "image_size: 14142x14142"),
        ({"scheduler": "DDIM", "sigmas": {"method": "array", "array": [9.0, 1.0]}}, "sigmas: DDIM cannot"),
        ({"timesteps": {"method": "array", "array": [900]}}, "timesteps: the checkpoint's own PNDMScheduler cannot"),
        ({"scheduler": "LCM", "timesteps": {"method": "array", "array": [1000]}}, "timesteps: array[0] must be below"),
        ({"rescale_betas_snr_zero": True}, "rescale_betas_snr_zero: the checkpoint's own PNDMScheduler cannot"),
        ({"tile_width": 127}, "tile_width: Input should be greater than or equal to 128"),
    ],
)
def test_a_bad_request_names_its_field(stage: PrepareStage, fields: dict[str, Any], message: str) -> None:
    assert_refused(ask(stage, **fields), message)


@pytest.mark.usefixtures("tiny_allowed")
@pytest.mark.parametrize("shape", [(64, 65_501, 3), (65_501, 64, 3)])
def test_a_picture_with_too_long_a_side_for_jpeg_is_refused(
    settings: Settings, job_table: JobTable, shape: tuple[int, ...]
) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_pixels": 65_501 * 64}), job_table)
    picture: dict[str, Any] = {"files": [make_png(np.zeros(shape, np.uint8))], "image_url": "tensor:0"}
    answer = ask(stage, **picture, image_format="jpeg")
    assert_refused(answer, "image_format: JPEG has at most 65500 pixels along a side, not 65501: use png")
    assert max(ask(stage, **picture, image_format="png").plan.latents_shape) == 8188
    stage.close()


@pytest.mark.usefixtures("tiny_allowed")
def test_a_native_size_beyond_the_limit_is_refused(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_pixels": 128 * 127}), job_table)
    assert_refused(ask(stage), "128x128")
    stage.close()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"prompt": ' * 10_000])
def test_what_is_no_json_object_is_refused(stage: PrepareStage, body: bytes) -> None:
    call, answer = make_call({"REQUEST": text_tensor(body)})
    stage.submit(call)
    assert isinstance(answer.error, InvalidArgument)


@pytest.mark.parametrize("count", [0, 2])
def test_one_request_is_one_element(stage: PrepareStage, count: int) -> None:
    call, answer = make_call({"REQUEST": np.array([b"{}"] * count, np.object_)})
    stage.submit(call)
    assert_refused(answer, "REQUEST: expected one element")


URL = "https://example.com/a.png"
IP_ADAPTER = {"path": "owner/name", "ip_adapter_image_url": URL}
CONTROLNET = {"path": "owner/name", "image_url": URL}
INCOMPLETE: dict[str, dict[str, Any]] = {
    "ic_light_image_url: missing": {"ic_light_model_url": "owner/name"},
    "ic_light_image_url: expected ic_light_model_url": {"ic_light_image_url": URL},
    "ic_light_model_background_image_url: expected": {"ic_light_model_background_image_url": URL},
    "image_encoder_subfolder: expected image_encoder_path": {"image_encoder_subfolder": "encoder"},
    "ip_adapter[0].scale: 0 has no effect": {"ip_adapter": [{**IP_ADAPTER, "scale": 0}]},
    "ip_adapter[0].scale: Input should be less": {"ip_adapter": [{**IP_ADAPTER, "scale": 1e39}]},
    "ip_adapter[0].scale_json: a scale is -1e+300": {"ip_adapter": [{**IP_ADAPTER, "scale_json": {"down": -1e300}}]},
    "controlnets[0].ip_adapter_index: 0 names no element of ip_adapter": {
        "controlnets": [{**CONTROLNET, "ip_adapter_index": 0}]
    },
    "controlnets[1].ip_adapter_index: 1 names no element of ip_adapter, which has 1": {
        "controlnets": [CONTROLNET, {**CONTROLNET, "ip_adapter_index": 1}],
        "ip_adapter": [IP_ADAPTER],
    },
    "enable_safety_checker: this server has none": {"enable_safety_checker": True},
}


@pytest.mark.parametrize("message", INCOMPLETE)
def test_fields_without_what_they_need_are_refused(stage: PrepareStage, message: str) -> None:
    assert_refused(ask(stage, **INCOMPLETE[message]), message)


DOCUMENTED_DEFAULTS = {
    "negative_prompt": "",
    "prompt_weighting": False,
    "noise_strength": 0.5,
    "loras": [],
    "embeddings": [],
    "controlnets": [],
    "controlnet_guess_mode": False,
    "ip_adapter": [],
    "image_encoder_weight_name": "pytorch_model.bin",
    "num_inference_steps": 30,
    "guidance_scale": 7.5,
    "clip_skip": 0,
    "timesteps": {"method": "default", "array": []},
    "sigmas": {"method": "default", "array": []},
    "rescale_betas_snr_zero": False,
    "image_format": "png",
    "num_images": 1,
    "enable_safety_checker": False,
    "tile_width": 4096,
    "tile_height": 4096,
    "tile_stride_width": 2048,
    "tile_stride_height": 2048,
    "eta": 0,
    "debug_latents": False,
    "debug_per_pass_latents": False,
}


def test_every_documented_default_is_available(sd15: Checkpoint) -> None:
    """A client that sends all fields as the documentation shows them is understood."""
    request = ImageToImageInput.model_validate({"model_name": "m", "prompt": "p"} | DOCUMENTED_DEFAULTS)
    schedule.check(request)
    schedule.check_on(request, sd15)
    clip_skip.check_on(request, sd15)


@pytest.mark.parametrize(("model", "layers", "most"), [("sd15", 1, 1), ("sd15", 2, 2), ("sdxl", 2, 1), ("sdxl", 3, 2)])
def test_no_more_layers_are_skipped_than_there_are(
    request: pytest.FixtureRequest, model: str, layers: int, most: int
) -> None:
    """SDXL begins with the last but one, and has to end before the embeddings."""
    whole: Checkpoint = request.getfixturevalue(model)
    encoders = tuple(encoder.model_copy() for encoder in whole.text_encoders)
    encoders[-1].__dict__["shapes"] = {f"text_model.encoder.layers.{i}.mlp.fc1.bias": (1,) for i in range(layers)}
    checkpoint = whole.model_copy(update={"text_encoders": encoders})
    for skipped in (0, 1, 2):
        fields = {"model_name": "m", "prompt": "p", "scheduler": "Euler", "clip_skip": skipped}
        asked = ImageToImageInput.model_validate(fields)
        if skipped <= most:
            clip_skip.check_on(asked, checkpoint)
            continue
        with pytest.raises(InvalidArgument, match=f"^clip_skip: at most {most}: a text encoder has {layers} layers"):
            clip_skip.check_on(asked, checkpoint)


def test_nothing_is_fetched_for_a_prompt_that_cannot_be_read(stage: PrepareStage, web: Web) -> None:
    assert_refused(ask(stage, image_url=web.url("/a"), prompt="(a", prompt_weighting=True), "prompt: '('")
    assert web.seen == []


def test_nothing_is_fetched_for_a_sampler_that_cannot(stage: PrepareStage, web: Web) -> None:
    timesteps = {"method": "array", "array": [900]}
    assert_refused(
        ask(stage, image_url=web.url("/a"), scheduler="Euler A", timesteps=timesteps), "timesteps: Euler A cannot"
    )
    assert web.seen == []
