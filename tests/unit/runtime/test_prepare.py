"""`prepare`: a request is admitted, its files found and checked, or refused with the field that is to blame."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.picture_metadata.strip_metadata import strip_metadata
from runtime.files.picture_metadata.stripped_picture import CHECK_EVERY
from runtime.jobs.job_table import JobTable, State
from runtime.plan import Plan
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, DeadlineExceeded, InvalidArgument, StageError, Unavailable
from runtime.stages.prepare import clip_skip, schedule, unavailable
from runtime.stages.prepare.size import Size
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime import lora_files
from tests.unit.runtime.picture_files import chunk, with_chunk
from tests.unit.runtime.plans import Answer, make_call, text_tensor
from tests.unit.runtime.web import Web, reply, silent

PIXELS = np.random.default_rng(0).integers(0, 256, (66, 72, 3), np.uint8)


def _png(pixels: Any = PIXELS) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def settings(settings: Settings, tiny: Path) -> Settings:
    """Its allowed folder holds the tiny checkpoints."""
    shutil.copytree(tiny, settings.local_paths[0], copy_function=os.link, dirs_exist_ok=True)
    return settings


@pytest.fixture
def stage(settings: Settings, job_table: JobTable) -> Iterator[PrepareStage]:
    found = PrepareStage(settings, job_table)
    yield found
    found.close()


def _ask(stage: PrepareStage, files: list[bytes] | None = None, image: bytes = b"", **fields: Any) -> Answer:
    body = json.dumps({"model_name": "sd15", "prompt": "a bird"} | fields)
    inputs: dict[str, Any] = {"REQUEST": text_tensor(body)}
    if files:
        inputs["FILES"] = np.array(files, np.object_)
    if image:
        inputs["IMAGE"] = np.frombuffer(image, np.uint8)
    call, answer = make_call(inputs, job_table=stage.reporter.job_table)
    stage.submit(call)
    return answer


def _plan(answer: Answer) -> Plan:
    return answer.plan


def _init_image(answer: Answer) -> Any:
    """The pixels [H, W, 3] that PICTURES holds of image_url."""
    plan, pictures = _plan(answer), answer.tensors["PICTURES"]
    picture = plan.picture("image_url")
    assert picture is not None
    assert pictures.size == sum(picture.nbytes for picture in plan.pictures)
    return picture.pixels(pictures)


def _refused(answer: Answer, message: str) -> None:
    assert isinstance(answer.error, InvalidArgument)
    assert message in str(answer.error)


def test_a_request_becomes_a_plan(stage: PrepareStage, sd15: Checkpoint) -> None:
    plan = _plan(_ask(stage, seed=9))
    assert (plan.checkpoint.kind, plan.seed, plan.has_image, plan.warnings) == ("sd", 9, False, ())
    assert plan.checkpoint.unet.digest == sd15.unet.digest


def test_a_picture_arrives_decoded(stage: PrepareStage) -> None:
    answer = _ask(stage, [b"other", _png()], image_url="tensor:1")
    plan = _plan(answer)
    assert np.array_equal(_init_image(answer), PIXELS)
    assert (plan.width, plan.height, plan.padded_width, plan.padded_height) == (72, 66, 72, 72)


def test_damaged_metadata_of_a_picture_is_not_read(stage: PrepareStage) -> None:
    odd = with_chunk(_png(), chunk(b"eXIf", b"b'Exif") + chunk(b"iCCP", b"ICC\0\x07"))
    answer = _ask(stage, [odd], image_url="tensor:0")
    assert np.array_equal(_init_image(answer), PIXELS)
    assert _plan(answer).warnings == ()


def test_the_tensor_image_is_the_picture(stage: PrepareStage) -> None:
    answer = _ask(stage, [b"other"], image=_png())
    assert _plan(answer).has_image
    assert np.array_equal(_init_image(answer), PIXELS)


def test_without_a_picture_there_are_no_bytes_of_one(stage: PrepareStage) -> None:
    answer = _ask(stage)
    assert answer.tensors["PICTURES"].shape == (0,)
    assert answer.tensors["PICTURES"].dtype == np.uint8
    assert _plan(answer).pictures == ()


def test_two_pictures_for_one_are_refused(stage: PrepareStage) -> None:
    _refused(_ask(stage, [_png()], image=_png(), image_url="tensor:0"), "image_url: give either")


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (128, 128)),  # the tiny checkpoint's own
        ({"image_size": "landscape_4_3"}, (1024, 768)),
        ({"image_size": {"width": 100, "height": 64}}, (100, 64)),
    ],
)
def test_the_size_without_a_picture(stage: PrepareStage, fields: dict[str, Any], size: tuple[int, int]) -> None:
    plan = _plan(_ask(stage, **fields))
    assert (plan.width, plan.height) == size
    assert (plan.padded_width, plan.padded_height) == tuple(-(-side // 8) * 8 for side in size)


def test_every_file_is_named_by_its_digest(stage: PrepareStage, tiny: Path, sd15: Checkpoint) -> None:
    plan = _plan(_ask(stage, loras=[{"path": "loras/sd15/peft.safetensors", "scale": -0.5}]))
    assert plan.files["model_name.unet[0]"] == sd15.unet.files[0].digest
    assert plan.files["loras[0].path"] == plan.loras[0].digest
    assert (plan.loras[0].field, plan.loras[0].scale) == ("loras[0].path", -0.5)


def test_a_lora_says_which_components_it_changes(stage: PrepareStage) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    sent = save(lora_files.pair(layer, 16, 16))
    paths = ("loras/sd15/peft.safetensors", "tensor:0")
    both, unet = _plan(_ask(stage, [sent], loras=[{"path": path} for path in paths])).loras
    assert both.components == {"unet", "text_encoder"}
    assert unet.components == {"unet"}


def test_keys_of_a_lora_that_nothing_uses_are_a_warning(stage: PrepareStage) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    unused = ["bundle_emb.fish.clip_l", *(f"stranger.{number}" for number in range(5))]
    sent = save(lora_files.pair(layer, 16, 16) | {name: torch.zeros(2, 16) for name in unused})
    peft = save(lora_files.pair(f"base_model.model.{layer}", 16, 16))
    plan = _plan(_ask(stage, [sent, peft], loras=[{"path": "tensor:0"}, {"path": "tensor:1"}]))
    first, second = plan.loras
    assert (first.receipt.tensors, first.receipt.matched, first.receipt.layers) == (8, 2, 1)
    assert [(part.kind, part.count) for part in first.receipt.unmatched] == [
        ("bundled_embedding", 1),
        ("unknown_layer", 5),
    ]
    assert (second.receipt.unmatched, second.receipt.is_alpha_assumed) == ((), True)
    unmatched, assumed = plan.warnings
    assert unmatched == (
        "loras[0].path: 6 of 8 tensors were not applied: bundled embeddings (1): bundle_emb.fish.clip_l; "
        "keys that name no layer (5): stranger.0, stranger.1, stranger.2 and 2 more"
    )
    assert assumed.startswith("loras[1].path: the file has no alpha, so alpha is the rank. ")


def test_a_seed_is_drawn_where_none_is_given(stage: PrepareStage) -> None:
    seeds = {_plan(_ask(stage)).seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_what_was_sent_inside_the_request_does_not_travel(stage: PrepareStage) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(_png()).decode()}"
    plan = _plan(_ask(stage, image_url=uri, strange="x" * 10_000, loras=[]))
    assert len(plan.to_json()) < 20_000
    assert b"x" * 300 not in plan.to_json()
    assert plan.warnings == ("strange: unknown field, ignored",)


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
        ({"image_url": "tensor:0"}, "image_url: tensor:0: expected an index from 0; FILES has 0 files"),
        ({"image_url": "data:,nothing"}, "image_url: not a picture"),
        ({"image_size": {"width": 63, "height": 64}}, "image_size: 63x64"),
        ({"image_size": {"width": 14142, "height": 14142}}, "image_size: 14142x14142"),
        ({"scheduler": "DDIM", "sigmas": {"method": "array", "array": [9.0, 1.0]}}, "sigmas: DDIM cannot"),
        ({"timesteps": {"method": "array", "array": [900]}}, "timesteps: the checkpoint's own PNDMScheduler cannot"),
        ({"scheduler": "LCM", "timesteps": {"method": "array", "array": [1000]}}, "timesteps: array[0] must be below"),
        ({"rescale_betas_snr_zero": True}, "rescale_betas_snr_zero: the checkpoint's own PNDMScheduler cannot"),
        ({"tile_width": 128, "tile_stride_width": 64, "image_size": "square"}, "tile_width: tiles smaller"),
    ],
)
def test_a_bad_request_names_its_field(stage: PrepareStage, fields: dict[str, Any], message: str) -> None:
    _refused(_ask(stage, **fields), message)


def test_a_native_size_beyond_the_limit_is_refused(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_pixels": 128 * 127}), job_table)
    _refused(_ask(stage), "128x128")
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
    _refused(answer, "REQUEST: expected one element")


TO_COME = {
    "prompt_weighting": True,
    "embeddings": [{"path": "owner/name"}],
    "controlnets": [{"path": "owner/name", "image_url": "https://example.com/a.png"}],
    "controlnet_guess_mode": True,
    "ip_adapter": [{"path": "owner/name", "ip_adapter_image_url": "https://example.com/a.png"}],
    "image_encoder_path": "owner/name",
    "image_encoder_subfolder": "encoder",
    "ic_light_model_url": "https://example.com/a.safetensors",
    "ic_light_model_background_image_url": "https://example.com/a.png",
    "ic_light_image_url": "https://example.com/a.png",
    "enable_safety_checker": True,
}


@pytest.mark.parametrize(("name", "value"), TO_COME.items())
def test_what_is_still_to_come_says_so(stage: PrepareStage, name: str, value: Any) -> None:
    answer = _ask(stage, **{name: value})
    _refused(answer, "not available yet")
    assert str(answer.error).startswith(f"{name}: ")


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
    """A client that sends all fields as the documentation shows them asks for nothing that is to come."""
    request = ImageToImageInput.model_validate({"model_name": "m", "prompt": "p"} | DOCUMENTED_DEFAULTS)
    unavailable.check(request)
    schedule.check(request)
    unavailable.check_tiles(request, Size(2048, 2048, 2048, 2048))
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
    assert _plan(_ask(stage, scheduler=scheduler, eta=eta)).warnings == warnings


def test_the_schedule_that_travels_is_one_that_was_checked(settings: Settings, job_table: JobTable) -> None:
    path = settings.local_paths[0] / "sd15/scheduler/scheduler_config.json"
    config = json.loads(path.read_text()) | {"strange": "x" * 10_000, "steps_offset": 0}
    path.unlink()
    path.write_text(json.dumps(config))
    stage = PrepareStage(settings, job_table)
    plan = _plan(_ask(stage))
    unknown = {"strange", "_diffusers_version"}
    assert plan.checkpoint.scheduler == {k: v for k, v in config.items() if k not in unknown} | {"steps_offset": 1}
    stage.close()


def _addressed(stage: PrepareStage, request_id: str, image_url: str) -> Answer:
    body = json.dumps({"model_name": "sd15", "prompt": "p", "image_url": image_url})
    call, answer = make_call({"REQUEST": text_tensor(body)}, request_id, job_token="secret")
    stage.submit(call)
    return answer


@pytest.fixture
def held(web: Web) -> Iterator[threading.Event]:
    """`/held` is a picture that does not come before the test ends."""
    event = threading.Event()
    web.answers["/held"] = silent(event)
    yield event
    event.set()


def test_a_second_live_request_of_one_id_is_refused(stage: PrepareStage, web: Web, held: threading.Event) -> None:
    _addressed(stage, "a", web.url("/held"))
    _refused(_addressed(stage, "a", "tensor:0"), "request_id: a request with this id is in flight")


def test_no_more_requests_than_the_limit(
    settings: Settings, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_in_flight": 1}), job_table)
    _ask(stage, image_url=web.url("/held"))
    assert isinstance(_ask(stage).error, Unavailable)
    stage.close()


def test_a_request_is_cancelled_while_its_files_are_fetched(
    stage: PrepareStage, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    answer = _addressed(stage, "a", web.url("/held"))
    job = job_table.find("a", "secret")
    assert job is not None
    job_table.cancel(job)
    assert isinstance(answer.error, Cancelled)
    assert job_table.progress(job).state == State.CANCELLED
    assert job_table.live() == []


def test_a_cancel_ends_the_decoding_of_a_picture(
    stage: PrepareStage, job_table: JobTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of many chunks is sent; the job is cancelled while they are read."""

    def cancelled_meanwhile(data: bytes, check_cancelled: Any) -> Any:
        (job,) = job_table.live()
        job_table.cancel(job)
        return strip_metadata(data, check_cancelled)

    monkeypatch.setattr("runtime.files.image_codec.strip_metadata", cancelled_meanwhile)
    odd = with_chunk(_png(), chunk(b"tEXt", b"") * CHECK_EVERY)
    assert isinstance(_ask(stage, [odd], image_url="tensor:0").error, Cancelled)


def test_a_draining_server_takes_no_request(stage: PrepareStage, job_table: JobTable) -> None:
    job_table.drain()
    assert isinstance(_ask(stage).error, Unavailable)


def test_a_request_that_is_open_when_the_stage_closes_is_answered(
    settings: Settings, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    stage = PrepareStage(settings.model_copy(update={"max_in_flight": 3}), job_table)
    answers = [_ask(stage, image_url=web.url("/held")) for _ in range(3)]
    stage.close()
    assert all(isinstance(answer.error, Unavailable) for answer in answers)


def test_the_files_of_a_job_stay_while_it_lives(settings: Settings, job_table: JobTable, tiny: Path, web: Web) -> None:
    stage = PrepareStage(settings.model_copy(update={"store_bytes": 0}), job_table)
    files = {style: (tiny / f"loras/sd15/{style}.safetensors").read_bytes() for style in ("peft", "kohya")}
    web.answers |= {f"/{style}": reply(content) for style, content in files.items()}
    first, second = (_plan(_ask(stage, loras=[{"path": web.url(f"/{style}")}])) for style in ("peft", "kohya"))
    assert first.loras[0].path.exists() and second.loras[0].path.exists()
    job_table.report(first.job, "finish", State.DONE)
    _plan(_ask(stage))  # notices that the first one has ended
    _plan(_ask(stage, [files["kohya"]], loras=[{"path": "tensor:0"}]))  # and what is put next evicts its files
    assert not first.loras[0].path.exists()
    assert second.loras[0].path.exists()
    stage.close()


def test_nothing_is_fetched_for_a_request_that_is_not_available(stage: PrepareStage, web: Web) -> None:
    _refused(_ask(stage, image_url=web.url("/a"), prompt_weighting=True), "prompt_weighting")
    assert web.seen == []


def test_nothing_is_fetched_for_a_sampler_that_cannot(stage: PrepareStage, web: Web) -> None:
    timesteps = {"method": "array", "array": [900]}
    _refused(
        _ask(stage, image_url=web.url("/a"), scheduler="Euler A", timesteps=timesteps), "timesteps: Euler A cannot"
    )
    assert web.seen == []


def test_a_request_too_large_for_the_memory_is_refused(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"memory_bytes": 10**8}), job_table)
    size = {"width": 1024, "height": 1024}
    _refused(
        _ask(stage, image_size=size),
        "its pictures need about 0.2 GB of memory, the server has 0.1 GB (LORIKEET_MEMORY_BYTES)",
    )
    assert _plan(_ask(stage))
    stage.close()


def test_requests_that_do_not_fit_together_wait_outside(settings: Settings, job_table: JobTable) -> None:
    stage = PrepareStage(settings.model_copy(update={"memory_bytes": 210_000_000}), job_table)
    large: dict[str, Any] = {
        "image_size": {"width": 256, "height": 256},
        "num_images": 4,
        "debug_per_pass_latents": True,
    }
    answers = [_ask(stage, num_inference_steps=150, **large) for _ in range(12)]
    for answer in answers:
        answer.wait()
    taken = [answer for answer in answers if not isinstance(answer.all[0], StageError)]
    assert 1 < len(taken) < 12
    assert all(isinstance(answer.error, Unavailable) for answer in answers if answer not in taken)
    job_table.report(_plan(taken[0]).job, "finish", State.DONE)
    assert _plan(_ask(stage, num_inference_steps=150, **large))
    stage.close()


def test_a_request_that_runs_out_of_time_while_its_files_are_fetched(
    stage: PrepareStage, job_table: JobTable, web: Web, held: threading.Event
) -> None:
    body = json.dumps({"model_name": "sd15", "prompt": "p", "image_url": web.url("/held")})
    call, answer = make_call({"REQUEST": text_tensor(body)}, job_timeout_ms=300)
    stage.submit(call)
    assert isinstance(answer.error, DeadlineExceeded)
    assert job_table.live() == []


def test_the_priority_travels_with_the_plan(stage: PrepareStage) -> None:
    call, answer = make_call(
        {"REQUEST": text_tensor('{"model_name": "sd15", "prompt": "p"}')},
        job_table=stage.reporter.job_table,
        job_priority=1,
    )
    stage.submit(call)
    assert _plan(answer).priority == 1


def test_many_that_wait_for_slow_servers_hold_up_nobody(stage: PrepareStage, web: Web, held: threading.Event) -> None:
    slow = [_ask(stage, image_url=web.url("/held")) for _ in range(40)]
    assert _plan(_ask(stage))
    assert not any(answer.all for answer in slow)
