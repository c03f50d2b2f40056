"""`prepare`: what the plan of a request holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.stages.prepare.stage import PrepareStage
from tests.tiny.controlnets import write_controlnet
from tests.tiny.unets import SD15
from tests.unit.runtime import lora_files
from tests.unit.runtime.picture_files import chunk, with_chunk
from tests.unit.runtime.plans import Answer, make_call, text_tensor
from tests.unit.runtime.prepare_requests import PIXELS, ask, assert_refused, make_png

# A control image, its mask and an image prompt: shapes and greys.
CONDITIONS = (((64, 96, 3), 50), ((64, 96, 3), 150), ((70, 90, 3), 250))


def _init_image(answer: Answer) -> Any:
    """The pixels [H, W, 3] that PICTURES holds of image_url."""
    plan, tensors = answer.plan, answer.tensors
    picture = plan.picture("image_url")
    assert picture is not None
    assert tensors["PICTURES"].size == sum(picture.nbytes for picture in plan.pictures)
    return picture.pixels(tensors)


def test_a_request_becomes_a_plan(stage: PrepareStage, sd15: Checkpoint) -> None:
    plan = ask(stage, seed=9).plan
    assert (plan.checkpoint.kind, plan.seed, plan.has_image, plan.warnings) == ("sd", 9, False, ())
    assert plan.checkpoint.unet.digest == sd15.unet.digest


def test_a_picture_arrives_decoded(stage: PrepareStage) -> None:
    answer = ask(stage, [b"other", make_png()], image_url="tensor:1")
    plan = answer.plan
    assert np.array_equal(_init_image(answer), PIXELS)
    assert (plan.width, plan.height, plan.padded_width, plan.padded_height) == (72, 66, 72, 72)


def test_damaged_metadata_of_a_picture_is_not_read(stage: PrepareStage) -> None:
    odd = with_chunk(make_png(), chunk(b"eXIf", b"b'Exif") + chunk(b"iCCP", b"ICC\0\x07"))
    answer = ask(stage, [odd], image_url="tensor:0")
    assert np.array_equal(_init_image(answer), PIXELS)
    assert answer.plan.warnings == ()


def test_the_tensor_image_is_the_picture(stage: PrepareStage) -> None:
    answer = ask(stage, [b"other"], image=make_png())
    assert answer.plan.has_image
    assert np.array_equal(_init_image(answer), PIXELS)


def test_image_prompts_that_grow_too_large_are_refused(stage: PrepareStage, tiny_allowed: Path) -> None:
    """Pictures of 14 KB, which the encoder wants in 3 MB each. LORIKEET_MAX_PIXELS is 4 times 1024 x 1024."""
    path = tiny_allowed / "ip_adapters/sd15/image_encoder/config.json"
    config = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(config | {"image_size": 1024}))
    adapter = {"path": "ip_adapters/sd15", "weight_name": "base.safetensors"}
    many, few = ({**adapter, "ip_adapter_image_url": ["tensor:0"] * count} for count in (16, 1))
    message = "ip_adapter[1].ip_adapter_image_url[0]: its pictures have more than 16777216 pixels together"
    assert_refused(ask(stage, [make_png()], ip_adapter=[many, few]), message)


@pytest.mark.parametrize("name", ["network", "network/diffusion_pytorch_model.safetensors"])
def test_a_controlnet_for_a_vae_of_another_factor_is_refused(
    stage: PrepareStage, tiny_allowed: Path, name: str
) -> None:
    """It has two strides of two. The UNet's latents have an eighth of the pixels."""
    write_controlnet(tiny_allowed / "network", 5, SD15, conditioning_embedding_out_channels=(8, 8, 16))
    answer = ask(stage, [make_png()], controlnets=[{"path": name, "image_url": "tensor:0"}])
    assert_refused(answer, "controlnets[0].path: it does not fit the checkpoint: it reduces a picture by 4 along each")


def test_each_stage_is_sent_the_pictures_that_it_needs(stage: PrepareStage, tiny: Path) -> None:
    """The init image and the control image are resized to the first control image, which is 96 x 64 here."""
    control, mask, prompt = (np.full(shape, value, np.uint8) for shape, value in CONDITIONS)
    files = [make_png(), make_png(control), make_png(mask), make_png(prompt)]
    controlnet = {"path": "controlnets/sd15", "image_url": "tensor:1", "mask_url": "tensor:2"}
    adapter = {"path": "ip_adapters/sd15", "weight_name": "plus.safetensors", "ip_adapter_image_url": ["tensor:3"] * 2}
    answer = ask(stage, files, image_url="tensor:0", controlnets=[controlnet], ip_adapter=[adapter])
    found = {picture.field: (picture.tensor, picture.width, picture.height) for picture in answer.plan.pictures}
    prompts = {f"ip_adapter[0].ip_adapter_image_url[{index}]": ("IMAGE_PROMPTS", 32, 32) for index in range(2)}
    assert found == prompts | {
        "image_url": ("PICTURES", 96, 64),
        "controlnets[0].image_url": ("CONTROLS", 96, 64),
        "controlnets[0].mask_url": ("CONTROLS", 96, 64),
    }
    values = {picture.field: int(picture.pixels(answer.tensors).mean()) for picture in answer.plan.pictures}
    assert values["controlnets[0].image_url"] == 50 and values["controlnets[0].mask_url"] == 150
    assert values["ip_adapter[0].ip_adapter_image_url[1]"] == 250
    assert [answer.tensors[name].size for name in ("PICTURES", "IMAGE_PROMPTS", "CONTROLS")] == [
        3 * 96 * 64,
        2 * 3 * 32 * 32,
        2 * 3 * 96 * 64,
    ]


def test_without_a_picture_there_are_no_bytes_of_one(stage: PrepareStage) -> None:
    answer = ask(stage)
    assert answer.tensors["PICTURES"].shape == (0,)
    assert answer.tensors["PICTURES"].dtype == np.uint8
    assert answer.plan.pictures == ()


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (128, 128)),  # the tiny checkpoint's own
        ({"image_size": "landscape_4_3"}, (1024, 768)),
        ({"image_size": {"width": 100, "height": 64}}, (100, 64)),
    ],
)
def test_the_size_without_a_picture(stage: PrepareStage, fields: dict[str, Any], size: tuple[int, int]) -> None:
    plan = ask(stage, **fields).plan
    assert (plan.width, plan.height) == size
    assert (plan.padded_width, plan.padded_height) == tuple(-(-side // 8) * 8 for side in size)


def test_every_file_is_named_by_its_digest(stage: PrepareStage, tiny: Path, sd15: Checkpoint) -> None:
    plan = ask(stage, loras=[{"path": "loras/sd15/peft.safetensors", "scale": -0.5}]).plan
    assert plan.files["model_name.unet[0]"] == sd15.unet.files[0].digest
    assert plan.files["loras[0].path"] == plan.loras[0].digest
    assert (plan.loras[0].field, plan.loras[0].scale) == ("loras[0].path", -0.5)


def test_a_lora_says_which_components_it_changes(stage: PrepareStage) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    sent = save(lora_files.pair(layer, 16, 16))
    paths = ("loras/sd15/peft.safetensors", "tensor:0")
    both, unet = ask(stage, [sent], loras=[{"path": path} for path in paths]).plan.loras
    assert both.components == {"unet", "text_encoder"}
    assert unet.components == {"unet"}


def test_keys_of_a_lora_that_nothing_uses_are_a_warning(stage: PrepareStage) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unused = ["bundle_emb.fish.clip_l", *(f"stranger.{number}" for number in range(5))]
    sent = save(lora_files.pair(layer, 16, 16) | {name: torch.zeros(2, 16) for name in unused})
    peft = save(lora_files.pair(f"base_model.model.{layer}", 16, 16))
    plan = ask(stage, [sent, peft], loras=[{"path": "tensor:0"}, {"path": "tensor:1"}]).plan
    first, second = plan.loras
    assert (first.receipt.tensors, first.receipt.matched, first.receipt.layers) == (8, 2, 1)
    assert [(part.kind, part.count) for part in first.receipt.unmatched] == [
        ("bundled_embedding", 1),
        ("unknown_layer", 5),
    ]
    assert (second.receipt.unmatched, second.receipt.is_alpha_assumed) == ((), True)
    unmatched, assumed = plan.warnings
    assert unmatched == (
        "loras[0].path: 6 of 8 tensors were not applied: bundled embeddings that do not fit the "
        "checkpoint (1): bundle_emb.fish.clip_l; "
        "keys that name no layer (5): stranger.0, stranger.1, stranger.2 and 2 more"
    )
    assert assumed.startswith("loras[1].path: the file has no alpha, so alpha is the rank. ")


def test_a_seed_is_drawn_where_none_is_given(stage: PrepareStage) -> None:
    seeds = {ask(stage).plan.seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_what_was_sent_inside_the_request_does_not_travel(stage: PrepareStage) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(make_png()).decode()}"
    plan = ask(stage, image_url=uri, strange="x" * 10_000, loras=[]).plan
    assert len(plan.to_json()) < 20_000
    assert b"x" * 300 not in plan.to_json()
    assert plan.warnings == ("strange: unknown field, ignored",)


@pytest.mark.parametrize(
    ("scheduler", "eta", "warnings"),
    [
        ("Euler A", 0.5, ("eta: Euler A takes none, ignored",)),
        (None, 0.5, ("eta: the checkpoint's own PNDMScheduler takes none, ignored",)),
        ("Euler A", 0.0, ()),
        ("TCD", 0.5, ()),
    ],
)
def test_an_eta_that_has_no_effect_is_told(
    stage: PrepareStage, scheduler: str | None, eta: float, warnings: tuple[str, ...]
) -> None:
    assert ask(stage, scheduler=scheduler, eta=eta).plan.warnings == warnings


def test_the_schedule_that_travels_is_one_that_was_checked(stage: PrepareStage, tiny_allowed: Path) -> None:
    path = tiny_allowed / "sd15/scheduler/scheduler_config.json"
    config = json.loads(path.read_text()) | {"strange": "x" * 10_000, "steps_offset": 0}
    path.unlink()
    path.write_text(json.dumps(config))
    plan = ask(stage).plan
    unknown = {"strange", "_diffusers_version"}
    assert plan.checkpoint.scheduler == {k: v for k, v in config.items() if k not in unknown} | {"steps_offset": 1}


def test_the_priority_travels_with_the_plan(stage: PrepareStage) -> None:
    call, answer = make_call(
        {"REQUEST": text_tensor('{"model_name": "sd15", "prompt": "p"}')},
        job_table=stage.reporter.job_table,
        job_priority=1,
    )
    stage.submit(call)
    assert answer.plan.priority == 1
