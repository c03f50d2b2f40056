"""`prepare`: a field that selects a file is read, is an error, or is a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.stages.prepare import ip_adapters
from runtime.stages.prepare.stage import PrepareStage
from tests.tiny.controlnets import WEIGHTS
from tests.unit.runtime.hub import publish
from tests.unit.runtime.prepare_requests import ask, assert_refused, make_png
from tests.unit.runtime.web import Web

FP16 = {".safetensors": "diffusion_pytorch_model.fp16.safetensors", ".bin": "diffusion_pytorch_model.fp16.bin"}
NO_ENCODER = "no IP-Adapter of the request takes an image encoder, ignored"


def _controlled(stage: PrepareStage, path: str, variant: str) -> Any:
    return ask(stage, [make_png()], controlnets=[{"path": path, "image_url": "tensor:0", "variant": variant}])


@pytest.mark.parametrize("kind", FP16)
def test_a_variant_of_a_controlnet_is_taken(stage: PrepareStage, hub: Web, tiny_allowed: Path, kind: str) -> None:
    folder = tiny_allowed / "controlnets/sd15"
    halves = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    (torch.save if kind == ".bin" else save_file)(halves, folder / FP16[kind])
    publish(hub, "owner/name", {path.name: path.read_bytes() for path in folder.iterdir()})
    for path in ("controlnets/sd15", "owner/name"):
        plan = _controlled(stage, path, "fp16").plan
        assert plan.warnings == ()
        (file,) = plan.controlnets[0].files
        assert {tensor.dtype for tensor in load_file(file.path).values()} == {torch.float16}


def test_a_variant_that_a_controlnet_lacks_is_refused(stage: PrepareStage, hub: Web, tiny: Path) -> None:
    message = "controlnets[0].variant: the ControlNet has no weights of the variant 'fp61'"
    assert_refused(_controlled(stage, "controlnets/sd15", "fp61"), message)
    folder = tiny / "controlnets/sd15"
    publish(hub, "owner/name", {path.name: path.read_bytes() for path in folder.iterdir()})
    assert_refused(_controlled(stage, "owner/name", "fp61"), message)


def test_a_controlnet_in_one_file_has_no_variant(stage: PrepareStage) -> None:
    plan = _controlled(stage, "controlnets/sd15_original.safetensors", "fp16").plan
    assert plan.warnings == ("controlnets[0].variant: a single file has no variants, ignored",)


def test_a_variant_of_a_unet_is_taken(stage: PrepareStage, hub: Web, tiny_allowed: Path) -> None:
    folder = tiny_allowed / "sd15/unet"
    halves = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(halves, folder / FP16[".safetensors"])
    publish(hub, "owner/name", {path.name: path.read_bytes() for path in folder.iterdir()})
    for unet in ("sd15/unet", "owner/name"):
        for model in ("sd15", "single/sd15.safetensors"):
            plan = ask(stage, model_name=model, unet_name=unet, variant="fp16").plan
            assert plan.warnings == ()
            (file,) = plan.checkpoint.unet.files
            assert {tensor.dtype for tensor in load_file(file.path).values()} == {torch.float16}


def test_a_variant_that_the_unet_lacks_is_a_warning(stage: PrepareStage, tiny_allowed: Path) -> None:
    """There is one field for both, and the checkpoint may have files of the variant alone."""
    folder = tiny_allowed / "sd15/vae"
    (folder / FP16[".safetensors"]).write_bytes((folder / WEIGHTS).read_bytes())
    plan = ask(stage, model_name="sd15", unet_name="lcm", variant="fp16").plan
    assert "variant: unet_name: the UNet has no weights of the variant 'fp16', ignored" in plan.warnings
    plan = ask(stage, model_name="sd15", unet_name="single/sd15.safetensors", variant="fp16").plan
    assert plan.warnings == (), "the checkpoint has the variant"


def test_a_variant_that_the_checkpoint_lacks_is_a_warning(stage: PrepareStage, tiny_allowed: Path) -> None:
    (tiny_allowed / "halves").mkdir()
    (tiny_allowed / "halves/config.json").write_bytes((tiny_allowed / "sd15/unet/config.json").read_bytes())
    (tiny_allowed / "halves" / FP16[".safetensors"]).write_bytes((tiny_allowed / "sd15/unet" / WEIGHTS).read_bytes())
    plan = ask(stage, model_name="sd15", unet_name="halves", variant="fp16").plan
    assert plan.warnings == ("variant: model_name: the checkpoint has no weights of the variant 'fp16', ignored",)
    assert plan.checkpoint.unet.files[0].path.name == FP16[".safetensors"]


def test_a_variant_that_no_folder_has_is_refused(stage: PrepareStage) -> None:
    without = {
        "checkpoint": ask(stage, model_name="sd15", variant="fp61"),
        "UNet": ask(stage, model_name="single/sd15.safetensors", unet_name="lcm", variant="fp61"),
    }
    for what, answer in without.items():
        assert_refused(answer, f"variant: the {what} has no weights of the variant 'fp61'")
    both = ask(stage, model_name="sd15", unet_name="lcm", variant="fp61")
    of_both = (f"the {what} has no weights of the variant 'fp61'" for what in ("checkpoint", "UNet"))
    assert_refused(both, f"variant: {'; '.join(of_both)}")


@pytest.mark.parametrize("unet", [None, "single/sd15.safetensors", "sd15_unet.safetensors"])
def test_a_checkpoint_in_one_file_has_no_variant(stage: PrepareStage, tiny_allowed: Path, unet: str | None) -> None:
    (tiny_allowed / "sd15_unet.safetensors").write_bytes((tiny_allowed / "sd15/unet" / WEIGHTS).read_bytes())
    plan = ask(stage, model_name="single/sd15.safetensors", unet_name=unet, variant="fp16").plan
    assert plan.warnings == ("variant: a single file has no variants, ignored",)


def _adapted(stage: PrepareStage, *adapters: dict[str, Any], **fields: Any) -> tuple[str, ...]:
    """The warnings for a request with these IP-Adapters."""
    named = [{"ip_adapter_image_url": "tensor:0", **adapter} for adapter in adapters]
    warnings: tuple[str, ...] = ask(stage, [make_png()], ip_adapter=named, **fields).plan.warnings
    return warnings


def test_an_adapter_in_one_file_has_no_names(stage: PrepareStage) -> None:
    file = {"path": "ip_adapters/sd15/base.safetensors"}
    encoder = {"image_encoder_path": "ip_adapters/sd15/image_encoder"}
    assert _adapted(stage, file, **encoder) == ()
    assert _adapted(stage, {**file, "model_subfolder": ""}, **encoder, image_encoder_subfolder="") == ()
    names = {"weight_name": "base.safetensors", "model_subfolder": "models"}
    assert _adapted(stage, {**file, **names}, **encoder) == (
        "ip_adapter[0].model_subfolder: ip_adapter[0].path is a single file, ignored",
        "ip_adapter[0].weight_name: ip_adapter[0].path is a single file, ignored",
    )


def test_an_image_encoder_in_one_file_has_no_names(
    stage: PrepareStage, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((tiny / "ip_adapters/sd15/image_encoder/config.json").read_text())
    # A file alone is of a published size, which is large.
    monkeypatch.setattr(ip_adapters, "read_image_encoder", lambda stored, _: read_image_encoder(stored, config))
    adapter = {"path": "ip_adapters/sd15", "weight_name": "base.safetensors"}
    file = {"image_encoder_path": "ip_adapters/sd15/image_encoder/model.safetensors"}
    assert _adapted(stage, adapter, **file, image_encoder_weight_name="pytorch_model.bin") == (), "the default"
    names = {"image_encoder_weight_name": "model.safetensors", "image_encoder_subfolder": "models"}
    assert _adapted(stage, adapter, **file, **names) == (
        "image_encoder_subfolder: image_encoder_path is a single file, ignored",
        "image_encoder_weight_name: image_encoder_path is a single file, ignored",
    )


@pytest.mark.parametrize("adapters", [[], [{"path": "ip_adapters/sd15", "weight_name": "faceid.safetensors"}]])
def test_an_image_encoder_that_no_adapter_takes_is_a_warning(
    stage: PrepareStage, adapters: list[dict[str, Any]]
) -> None:
    faces = [{**adapter, "insight_face_model_path": "face_pack"} for adapter in adapters]
    assert _adapted(stage, *faces, image_encoder_weight_name="pytorch_model.bin") == ()
    fields = {"image_encoder_path": "no/such/folder", "image_encoder_subfolder": "models"}
    assert _adapted(stage, *faces, **fields) == tuple(f"{field}: {NO_ENCODER}" for field in fields)
