"""Faces through the running server: pictures without one, packs that are sent, and packs that are hostile."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorikeet import Client, InvalidRequest
from tests.tiny.face_pack import DETECTOR, EMBEDDER, detector, embedder, face_picture
from tests.unit.runtime.test_hostile_packs import with_endless_loop, with_external_weights, with_short_weights

FACE = face_picture(("green", 40, 30))


def request(pack: Any, face: Image.Image = FACE, **fields: Any) -> dict[str, Any]:
    adapter = {
        "path": "ip_adapters/sd15",
        "weight_name": "faceid.safetensors",
        "ip_adapter_image_url": face,
        "insight_face_model_path": pack,
    }
    return {
        "model_name": "sd15",
        "prompt": "a face",
        "image_size": {"width": 64, "height": 64},
        "num_inference_steps": 2,
        "seed": 3,
        "ip_adapter": [adapter],
        **fields,
    }


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sent_pack(change: Any = None) -> bytes:
    """An archive of a pack whose detector `change` has changed."""
    model = detector()
    if change is not None:
        change(model)
    return zipped({DETECTOR: model.SerializeToString(), EMBEDDER: embedder(5).SerializeToString()})


def test_a_picture_without_a_face_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"ip_adapter\[0\]\.ip_adapter_image_url: no face was found"):
        client.image_to_image(**request("face_pack", face_picture()))


def test_a_pack_may_be_sent_as_an_archive(client: Client, tiny: Path) -> None:
    expected = client.image_to_image(**request("face_pack"))
    found = client.image_to_image(**request(zipped({one.name: one.read_bytes() for one in _files(tiny)})))
    assert [image.tobytes() for image in found.images] == [image.tobytes() for image in expected.images]
    digests = {name: value for name, value in found.response.receipt.files.items() if "insight_face" in name}
    assert len(digests) == len(_files(tiny))
    assert [(lora.field, lora.layers > 0) for lora in found.response.receipt.loras] == [("ip_adapter[0].path", True)]


def _files(tiny: Path) -> list[Path]:
    return sorted((tiny / "face_pack").glob("*.onnx"))


HOSTILE = {
    "weights in other files": with_external_weights,
    "OpenVINO cannot run a detector": with_short_weights,
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_hostile_pack_is_refused_and_the_stage_lives(client: Client, message: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"ip_adapter\[0\]\.insight_face_model_path: .*{message}"):
        client.image_to_image(**request(sent_pack(HOSTILE[message])))
    assert client.image_to_image(**request("face_pack")).images


@pytest.mark.verify
def test_a_pack_that_computes_without_end_is_refused_after_a_minute(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="need more than 60 s"):
        client.image_to_image(**request(sent_pack(with_endless_loop)))
    assert client.image_to_image(**request("face_pack")).images


def test_the_weights_are_the_checkpoints_own_when_the_adapter_is_gone(client: Client) -> None:
    """The LoRA of a FaceID changes the UNet of its requests alone."""
    plain = {**request("face_pack"), "ip_adapter": []}
    before = client.image_to_image(**plain).files
    face = client.image_to_image(**request("face_pack")).files
    assert client.image_to_image(**plain).files == before != face
