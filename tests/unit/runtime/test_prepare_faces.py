"""`prepare`: adapters that take a face, and the files that they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.plan import Plan
from runtime.stages.prepare.shared_memory_estimate import stage_bytes
from runtime.stages.prepare.stage import PrepareStage
from tests.tiny.face_adapters import INSTANT_ID_TOKENS, PORTRAIT_TOKENS, TOKENS
from tests.tiny.face_pack import face_picture
from tests.tiny.text_encoders import WIDTH
from tests.unit.runtime.prepare_requests import ask, assert_refused, make_png

PICTURE = make_png(np.array(face_picture(("green", 40, 30))))
CONTROLNET = {"path": "controlnets/sd15", "image_url": "tensor:0", "ip_adapter_index": 0}


def adapter(name: str, pack: str | None = "face_pack", **fields: Any) -> dict[str, Any]:
    found = {"path": "ip_adapters/sd15", "weight_name": f"{name}.safetensors", "ip_adapter_image_url": "tensor:0"}
    return {**found, "insight_face_model_path": pack, **fields}


def plan_of(stage: PrepareStage, *adapters: dict[str, Any], **fields: Any) -> Plan:
    return ask(stage, [PICTURE], ip_adapter=list(adapters), **fields).plan


REFUSED: dict[str, dict[str, Any]] = {
    "ip_adapter[0].path: it is an IP-Adapter FaceID: name the InsightFace pack": adapter("faceid", None),
    "ip_adapter[0].path: it takes a picture, not a face": adapter("base"),
    "ip_adapter[0].path: it takes embeddings of 512 values": adapter("instant_id", None),
    "ip_adapter[0].insight_face_model_path: it has no .onnx files": adapter("faceid", "loras"),
    "ip_adapter[0].insight_face_model_path: ../x": adapter("faceid", "../x"),
    "ip_adapter[0].insight_face_model_path: sd15/model_index.json: it is no zip archive": adapter(
        "faceid", "sd15/model_index.json"
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_an_adapter_lacks_is_named(stage: PrepareStage, message: str) -> None:
    assert_refused(ask(stage, [PICTURE], ip_adapter=[REFUSED[message]]), message)


def test_a_face_is_found_in_the_whole_picture(stage: PrepareStage) -> None:
    plan = plan_of(stage, adapter("faceid"), adapter("plus", None))
    sizes = [(picture.height, picture.width) for picture in plan.pictures]
    assert sizes == [(64, 96), (32, 32)]


@pytest.mark.parametrize(("name", "needed"), [("faceid", False), ("instant_id", False), ("faceid_plus", True)])
def test_only_some_adapters_need_an_image_encoder(stage: PrepareStage, name: str, needed: bool) -> None:
    assert (plan_of(stage, adapter(name)).image_encoder is not None) == needed


def test_the_receipt_lists_the_files_and_the_lora(stage: PrepareStage) -> None:
    plan = plan_of(stage, adapter("faceid"), loras=[{"path": "loras/sd15/peft.safetensors"}])
    packs = [field for field in plan.files if field.startswith("ip_adapter[0].insight_face_model_path[")]
    assert len(packs) == 3
    assert [(lora.field, lora.scale) for lora in plan.loras] == [("loras[0].path", 1.0), ("ip_adapter[0].path", 1.0)]
    assert not plan.warnings


@pytest.mark.parametrize("name", ["base", "plus", "full", "instant_id", "faceid_plus", "portrait"])
def test_no_tensor_of_an_adapter_or_a_controlnet_is_unread(stage: PrepareStage, name: str) -> None:
    pack = None if name in ("base", "plus", "full") else "face_pack"
    controlnet = {**CONTROLNET, "path": "controlnets/sd15_original.safetensors"}
    assert not plan_of(stage, adapter(name, pack), controlnets=[controlnet]).warnings


def test_the_lora_of_a_file_is_applied_once(stage: PrepareStage) -> None:
    plan = plan_of(stage, adapter("faceid"), adapter("faceid", scale=0.5), adapter("faceid_plus"), adapter("portrait"))
    assert [lora.field for lora in plan.loras] == ["ip_adapter[0].path", "ip_adapter[2].path"]


@pytest.mark.parametrize(
    ("name", "tokens"), [("faceid", TOKENS), ("portrait", PORTRAIT_TOKENS), ("instant_id", INSTANT_ID_TOKENS)]
)
def test_the_plan_knows_the_sizes_of_the_tensors(stage: PrepareStage, name: str, tokens: int) -> None:
    asked = adapter(name, ip_adapter_image_url=["tensor:0", "tensor:0"])
    plan = plan_of(stage, asked, controlnets=[CONTROLNET])
    assert plan.control_tokens == {0: 2 * tokens}
    assert plan.control_tokens_shape == (2, 2 * tokens, WIDTH)
    assert plan.image_prompt_shape[2] >= 2 * tokens
    without = plan_of(stage, asked).model_copy(update={"pictures": plan.pictures})
    counted, others = (stage_bytes(one, inline=False, parameters=0)["denoiser"].taken for one in (plan, without))
    assert counted - others == 4 * 2 * 2 * tokens * WIDTH


def test_an_adapter_of_scale_0_may_condition_a_controlnet(stage: PrepareStage) -> None:
    assert plan_of(stage, adapter("instant_id", scale=0), controlnets=[CONTROLNET]).control_tokens
    assert_refused(ask(stage, [PICTURE], ip_adapter=[adapter("instant_id", scale=0)]), "ip_adapter[0].scale: 0 has no")


def test_a_file_of_a_pack_may_be_a_link_only_inside(
    stage: PrepareStage, allowed: Path, secret: Path, tmp_path: Path
) -> None:
    (allowed / "pack").mkdir()
    (allowed / "pack" / "a.onnx").symlink_to(secret)
    asked = adapter("faceid", "pack")
    assert_refused(ask(stage, [PICTURE], ip_adapter=[asked]), "insight_face_model_path: a.onnx is outside")
