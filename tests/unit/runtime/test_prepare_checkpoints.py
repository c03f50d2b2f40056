"""`prepare` with every form of a checkpoint and of a UNet: what the plan holds, and which field is to blame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.jobs.job_table import JobRef, JobTable
from runtime.settings import Settings
from runtime.stages.prepare.context import PrepareContext
from runtime.stages.prepare.planner import Admission, make_plan
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.prepare_requests import ask, assert_refused, make_png
from tests.unit.runtime.web import Web, reply

UNET = "unet/diffusion_pytorch_model.safetensors"
TOKENS = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"


@pytest.fixture(scope="module")
def whole(tiny: Path) -> bytes:
    """A single file with a vocabulary of CLIP's size, so that it needs no sidecar."""
    return save(load_file(tiny / "single/sd15.safetensors") | {TOKENS: torch.zeros(49408, 32)})


def test_a_local_single_file_is_a_checkpoint(stage: PrepareStage, tiny_allowed: Path, sd15: Checkpoint) -> None:
    plan = ask(stage, model_name="single/sd15.safetensors").plan
    assert plan.checkpoint.unet.shapes == sd15.unet.shapes
    assert plan.checkpoint.tokenizers[0].folder == tiny_allowed / "sd15/tokenizer"
    assert set(plan.files) == {"model_name.unet[0]", "model_name.vae[0]", "model_name.text_encoder[0]"}
    assert len(set(plan.files.values())) == 1


@pytest.mark.parametrize("model_name", ["tensor:0", "URL"])
def test_a_single_file_from_elsewhere_is_a_checkpoint(
    stage: PrepareStage, web: Web, whole: bytes, sd15: Checkpoint, model_name: str
) -> None:
    web.answers["/a"] = reply(whole)
    model_name = web.url("/a") if model_name == "URL" else model_name
    checkpoint = ask(stage, [whole], model_name=model_name).plan.checkpoint
    assert checkpoint.unet.shapes == sd15.unet.shapes
    assert (checkpoint.tokenizers[0].folder, checkpoint.tokenizers[0].pad_token) == (None, "<|endoftext|>")


def test_a_checkpoint_is_downloaded_once(stage: PrepareStage, web: Web, whole: bytes) -> None:
    web.answers["/a"] = reply(whole)
    plans = [ask(stage, model_name=web.url("/a")).plan for _ in range(2)]
    assert plans[0].checkpoint == plans[1].checkpoint
    assert len(web.seen) == 1


def test_a_file_that_serves_as_both_is_pinned_for_each_job(
    settings: Settings, job_table: JobTable, web: Web, whole: bytes
) -> None:
    stage = PrepareStage(settings.model_copy(update={"store_bytes": 0}), job_table)
    web.answers["/a"] = reply(whole)
    plan = ask(stage, [b"another" * 99], model_name=web.url("/a"), unet_name=web.url("/a")).plan
    assert plan.checkpoint.unet.files[0].path.exists()
    stage.close()


@pytest.mark.parametrize("unet_name", ["lcm", "lcm/unet", f"lcm/{UNET}", "tensor:0", "URL"])
def test_another_unet_is_taken(stage: PrepareStage, web: Web, tiny_allowed: Path, tiny: Path, unet_name: str) -> None:
    content = (tiny / "lcm" / UNET).read_bytes()
    web.answers["/a"] = reply(content)
    plan = ask(stage, [content], unet_name=web.url("/a") if unet_name == "URL" else unet_name).plan
    assert plan.checkpoint.unet.config["time_cond_proj_dim"] == plan.guidance_width == 12
    assert not plan.guided
    assert set(plan.files) == {"unet_name.unet[0]", "model_name.vae[0]", "model_name.text_encoder[0]"}


def test_a_variant_is_taken(stage: PrepareStage, tiny_allowed: Path) -> None:
    plain = tiny_allowed / "sd15" / UNET
    shutil.copyfile(plain, plain.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert ask(stage, variant="fp16").plan.checkpoint.unet.files[0].path.name.endswith(".fp16.safetensors")


def test_a_single_file_has_no_variant(stage: PrepareStage) -> None:
    plan = ask(stage, model_name="single/sd15.safetensors", variant="fp16").plan
    assert plan.warnings == ("variant: a single file has no variants, ignored",)


def test_surplus_tensors_are_a_warning(stage: PrepareStage, tiny_allowed: Path) -> None:
    path = tiny_allowed / "single/sd15.safetensors"
    tensors = load_file(path) | {"zz_owner": torch.zeros(1)}
    path.unlink()
    path.write_bytes(save(tensors))
    plan = ask(stage, model_name="single/sd15.safetensors").plan
    assert plan.warnings == ("model_name: ignored 1 tensor, which no network of Stable Diffusion has: zz_owner",)
    # The UNet of another file: this one's is not read, and none of its tensors is surplus.
    plan = ask(stage, unet_name="single/sd15.safetensors").plan
    assert plan.warnings == ("unet_name: ignored 1 tensor, which no network of Stable Diffusion has: zz_owner",)


def _marked(tiny_allowed: Path, mark: str) -> str:
    """The single file of SDXL with this empty tensor, and without a scheduler in its sidecar."""
    path = tiny_allowed / "single/sdxl.safetensors"
    tensors = load_file(path) | {mark: torch.zeros(0)}
    sidecar = json.loads(path.with_suffix(".config.json").read_text())
    for old in (path, path.with_suffix(".config.json")):
        old.unlink()
    path.write_bytes(save(tensors))
    path.with_suffix(".config.json").write_text(json.dumps(sidecar | {"scheduler": {}}))
    return "single/sdxl.safetensors"


@pytest.mark.parametrize(
    ("model", "asked", "own"),
    [
        ("v_pred", "epsilon", "v_prediction"),
        ("v_pred", "v_prediction", None),
        ("v_pred", None, None),
        ("sd2", "epsilon", "v_prediction"),
        ("sd2", "v_prediction", None),
        ("sd15", "v_prediction", "epsilon"),
        ("sdxl", "v_prediction", "epsilon"),
        ("sdxl", "epsilon", None),
        ("single/sd15.safetensors", "v_prediction", "epsilon"),
    ],
)
def test_another_prediction_type_than_the_checkpoints_is_a_warning(
    stage: PrepareStage, tiny_allowed: Path, model: str, asked: str | None, own: str | None
) -> None:
    plan = ask(
        stage, model_name=_marked(tiny_allowed, model) if model == "v_pred" else model, prediction_type=asked
    ).plan
    if own is None:
        assert plan.warnings == ()
    else:
        (warning,) = plan.warnings
        assert warning.startswith(f"prediction_type: {asked!r} replaced the checkpoint's own {own!r}; ")


@pytest.mark.parametrize("scheduler", [None, "Euler", "DDIM"])
def test_a_scheduler_for_other_models_names_the_checkpoint(
    stage: PrepareStage, tiny_allowed: Path, scheduler: str | None
) -> None:
    path = tiny_allowed / "sdxl/scheduler/scheduler_config.json"
    path.unlink()
    path.write_text(json.dumps({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5, "sigma_max": 80.0}))
    assert_refused(
        ask(stage, model_name="sdxl", scheduler=scheduler), "model_name: its scheduler 'EDMEulerScheduler' is"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "fp16"}, "variant: the checkpoint has no weights of the variant 'fp16'"),
        ({"variant": "../fp16"}, "variant: may contain only letters, digits, '_' and '-'"),
        ({"variant": ""}, "variant: may contain only letters"),
        ({"model_name": "lcm/unet/diffusion_pytorch_model.safetensors"}, "model_name: it contains only a UNet"),
        ({"model_name": "sd15/unet/config.json"}, "model_name: not a readable .safetensors file"),
        ({"model_name": "tensor:0"}, "model_name: tensor:0: it is a pickle"),
        ({"model_name": "tensor:1"}, "model_name: tensor:1: expected an index from 0; FILES has 1 files"),
        ({"unet_name": "tensor:0"}, "unet_name: tensor:0: it is a pickle"),
        ({"unet_name": "missing"}, "unet_name: missing was not found: expected"),
        ({"unet_name": "../x"}, "unet_name: ../x does not exist in a folder"),
        ({"unet_name": "sdxl"}, "unet_name: the UNet is of SDXL, the checkpoint is not"),
        ({"unet_name": "everything"}, "unet_name: the UNet is of SDXL, the checkpoint is not"),
        ({"unet_name": "sd2"}, "unet_name: the UNet does not fit the text encoders"),
        ({"unet_name": "loras/sd15/peft.safetensors"}, "unet_name: it contains no Stable Diffusion UNet"),
    ],
)
def test_a_bad_checkpoint_names_its_field(stage: PrepareStage, fields: dict[str, Any], message: str) -> None:
    assert_refused(ask(stage, [b"PK\x03\x04" + bytes(200)], **fields), message)


def test_of_a_download_that_breaks_off_nothing_stays(
    stage: PrepareStage, settings: Settings, web: Web, whole: bytes
) -> None:
    web.answers["/a"] = reply(whole[:1000], headers={"Content-Length": str(len(whole))})
    assert_refused(ask(stage, model_name=web.url("/a")), f"model_name: {web.url('/a')}: ")
    assert list((settings.store / "blobs").iterdir()) == []


def test_one_that_hashes_a_folder_asks_whether_to_stop(
    settings: Settings, tiny_allowed: Path, store: Store, job: JobRef
) -> None:
    files = FileResolver(settings, store)

    def asked(**fields: str) -> int:
        check_cancelled = Mock()
        request = ImageToImageInput.model_validate({"model_name": "sd15", "prompt": "a bird"} | fields)
        context = PrepareContext(settings, store, files, ResolveContext([], store.pins(), check_cancelled))
        make_plan(request, context, Admission(job, 0.0, 2))
        return int(check_cancelled.call_count)

    assert asked() > asked()
    assert asked(unet_name="lcm") > asked(unet_name="lcm")


def test_a_name_that_leaves_no_room_for_a_sidecars_is_a_name(stage: PrepareStage, tiny_allowed: Path) -> None:
    name = "a" * 250
    shutil.copyfile(tiny_allowed / "single/sd15.safetensors", tiny_allowed / name)
    assert_refused(ask(stage, model_name=name), "model_name: text_encoder has 823 tokens")


@pytest.mark.parametrize("shape", [(32,), ()])
def test_a_unet_whose_attention_keys_are_no_matrices_is_refused(
    stage: PrepareStage, tiny_allowed: Path, shape: tuple[int, ...]
) -> None:
    tensors = load_file(tiny_allowed / "sd15" / UNET)
    keys = [name for name in tensors if name.endswith(".attn2.to_k.weight")]
    changed = keys if shape else keys[:1]
    adapter = {"path": "ip_adapters/sd15", "weight_name": "base.safetensors", "ip_adapter_image_url": "tensor:0"}
    (tiny_allowed / "sd15" / UNET).unlink()
    save_file(tensors | {name: torch.zeros(shape) for name in changed}, tiny_allowed / "sd15" / UNET)
    answer = ask(stage, [make_png()], ip_adapter=[adapter])
    assert_refused(answer, "ip_adapter[0].path: it does not fit the checkpoint")
