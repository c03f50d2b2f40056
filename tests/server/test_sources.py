"""Files by URL, by path, and sent along are the same files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lorikeet import Client, InvalidRequest
from tests.server.web import Web

PICTURE = Image.radial_gradient("L").resize((72, 64)).convert("RGB")


def png() -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG")
    return buffer.getvalue()


def run(client: Client, tiny: Path, image: Any, lora: Any) -> bytes:
    result = client.image_to_image(
        model_name=str(tiny / "sd15"),
        prompt="a boat",
        image=image,
        loras=[{"path": lora}],
        seed=2,
        num_inference_steps=2,
    )
    return result.files[0]


def test_a_url_a_path_and_a_sent_file_are_the_same(client: Client, tiny: Path, web: Web, tmp_path: Path) -> None:
    web.pictures["picture.png"] = png()
    (tmp_path / "picture.png").write_bytes(png())
    lora = tiny / "loras" / "sd15" / "kohya.safetensors"
    by_url = run(client, tiny, web.url("picture.png"), web.url("loras/sd15/kohya.safetensors"))
    assert by_url == run(client, tiny, PICTURE, str(lora))
    assert by_url == run(client, tiny, tmp_path / "picture.png", lora)
    assert by_url == run(client, tiny, png(), "loras/sd15/kohya.safetensors")


def test_a_unet_is_the_same_in_every_form_and_place(client: Client, tiny: Path, web: Web) -> None:
    file = "lcm/unet/diffusion_pytorch_model.safetensors"

    def painted(**fields: Any) -> bytes:
        base = {"model_name": "sd15", "prompt": "a boat", "seed": 2, "num_inference_steps": 2, "scheduler": "LCM"}
        return client.image_to_image(**{**base, **fields}, image=PICTURE).files[0]

    by_name = painted(unet_name="lcm/unet")
    assert by_name != painted()
    assert by_name == painted(unet_name="lcm")
    assert by_name == painted(unet_name=file)
    assert by_name == painted(unet_name=tiny / file)
    assert by_name == painted(unet_name=web.url(file)) == painted(unet_name=web.url(file))
    assert web.requests[file] == 1


def test_weights_are_fetched_once_and_pictures_each_time(client: Client, tiny: Path, web: Web) -> None:
    web.pictures["again.png"] = png()
    lora = "loras/sd15/peft.safetensors"
    for _ in range(3):
        run(client, tiny, web.url("again.png"), web.url(lora))
    assert web.requests["again.png"] == 3
    assert web.requests[lora] == 1


@pytest.mark.parametrize(("name", "said"), [("no/such.png", "the server answered 404"), ("sd15", "not a picture")])
def test_what_cannot_be_fetched_names_its_url(client: Client, tiny: Path, web: Web, name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        run(client, tiny, web.url(name), "x/y")
    assert str(caught.value).startswith("image_url: ")


def test_the_response_names_the_digest_of_every_file(client: Client, tiny: Path) -> None:
    lora = tiny / "loras" / "sdxl" / "peft.safetensors"
    result = client.image_to_image(
        model_name="sdxl", prompt="a boat", loras=[{"path": str(lora)}], num_inference_steps=1
    )
    files = result.response.files
    assert files["loras[0].path"] == hashlib.sha256(lora.read_bytes()).hexdigest()
    unet = tiny / "sdxl" / "unet" / "diffusion_pytorch_model.safetensors"
    assert files["model_name.unet[0]"] == hashlib.sha256(unet.read_bytes()).hexdigest()
    assert len(files) == 5
