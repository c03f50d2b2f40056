"""Bad requests: each a clear INVALID_ARG that names the field, before any heavy work; and the next one works."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.grpc
from PIL import Image
from safetensors.numpy import save

from deploy.local_server import LocalServer

Fields = dict[str, Any]


def data_uri(width: int, height: int) -> str:
    """A picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "olive").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PNG, OTHER = data_uri(96, 64), data_uri(64, 96)
CONTROLNET = {"path": "controlnets/sd15", "image_url": PNG}
IP_ADAPTER = {"path": "ip_adapters/sd15", "weight_name": "base.safetensors", "image_url": PNG}
BAD: dict[str, tuple[Fields, str]] = {
    "no prompt": ({"prompt": None}, "prompt: "),
    "strength": ({"noise_strength": 1.5}, "noise_strength: "),
    "steps": ({"num_inference_steps": 0}, "num_inference_steps: "),
    "scheduler": ({"scheduler": "Heun"}, "scheduler: "),
    "lora scale": ({"loras": [{"path": "x/y", "scale": "much"}]}, "loras[0].scale: "),
    "lora is a list": ({"loras": {"path": "x"}}, "loras: "),
    "checkpoint outside": ({"model_name": "/etc"}, "model_name: "),
    "checkpoint climbs out": ({"model_name": "sd15/../../.."}, "model_name: "),
    "checkpoint by URL": ({"model_name": "https://example.org/x.safetensors"}, "model_name: "),
    "file URL": ({"image_url": "file:///etc/passwd"}, "image_url: file:///etc/passwd: only https"),
    "plain http": ({"image_url": "http://example.org/a.png"}, "image_url: http://example.org/a.png: only https"),
    "loopback": ({"image_url": "https://127.0.0.1/a.png"}, "image_url: https://127.0.0.1/a.png: 127.0.0.1 is not"),
    "link-local": ({"image_url": "https://169.254.169.254/"}, "image_url: https://169.254.169.254/: 169.254"),
    "no such tensor": ({"image_url": "tensor:3"}, "image_url: tensor:3: expected an index from 0; FILES has 0 files"),
    "no picture": ({"image_url": "data:image/png;base64,AAAA"}, "image_url: not a picture"),
    "bad base64": ({"image_url": "data:image/png;base64,@@"}, "image_url: the data URI is not valid base64"),
    "huge": ({"image_size": {"width": 9000, "height": 9000}}, "image_size: 9000x9000"),
    "tiny": ({"image_size": {"width": 8, "height": 8}}, "image_size: 8x8"),
    "tile": ({"tile_height": 4097}, "tile_height: "),
    "no timesteps of its own": (
        {"scheduler": "DDIM", "timesteps": {"method": "array", "array": [900, 500, 1]}},
        "timesteps: ",
    ),
    "no sigmas of its own": ({"scheduler": "LCM", "sigmas": {"method": "array", "array": [9.0, 1.0]}}, "sigmas: "),
    "rising timesteps": ({"scheduler": "LCM", "timesteps": {"method": "array", "array": [1, 500]}}, "timesteps: "),
    "no zero SNR": ({"rescale_betas_snr_zero": True}, "rescale_betas_snr_zero: "),
    "clip_skip": ({"clip_skip": 99}, "clip_skip: "),
    "unet_name": ({"unet_name": "no/such/unet"}, "unet_name: "),
    "unet of another architecture": ({"unet_name": "sdxl/unet"}, "unet_name: "),
    "variant": ({"variant": "../../etc"}, "variant: "),
    "open bracket": (
        {"prompt_weighting": True, "prompt": "a (red fish"},
        "prompt: '(' at character 3 (in 'a (red fish') has no counterpart",
    ),
    "bad weight": (
        {"prompt_weighting": True, "negative_prompt": "(a:1,5)"},
        "negative_prompt: the weight '1,5' at character 4 (in '(a:1,5)') is not a number",
    ),
    "too long to weigh": ({"prompt_weighting": True, "prompt": "🌸" * 10_000}, "prompt: it has more than 32 chunks"),
    "embedding": ({"embeddings": [{"path": "no/such/embedding"}]}, "embeddings[0].path: "),
    "embedding of SDXL": (
        {"embeddings": [{"path": "embeddings/sdxl/two.safetensors"}]},
        "embeddings[0].path: it was made for SDXL's two text encoders",
    ),
    "tokens of an embedding": (
        {"embeddings": [{"path": "embeddings/sd15/three.pt", "tokens": ["a", "b"]}]},
        "embeddings[0].tokens: 2 tokens for 3 vectors",
    ),
    "control image": ({"controlnets": [CONTROLNET | {"image_url": "tensor:3"}]}, "controlnets[0].image_url: tensor:3"),
    "mask of another size": ({"controlnets": [CONTROLNET | {"mask_url": OTHER}]}, "controlnets[0].mask_url: 64x96"),
    "ControlNet": ({"controlnets": [CONTROLNET | {"path": "no/such/net"}]}, "controlnets[0].path: "),
    "ControlNet of SDXL": (
        {"controlnets": [CONTROLNET, CONTROLNET | {"path": "controlnets/sdxl"}]},
        "controlnets[1].path: it does not fit the checkpoint",
    ),
    "ControlNet's options": (
        {"controlnets": [CONTROLNET | {"config_url": "data:application/json,[1]"}]},
        "controlnets[0].config_url: the file is not a JSON object",
    ),
    "ControlNet's end": (
        {"controlnets": [CONTROLNET | {"start_percentage": 0.5, "end_percentage": 0.5}]},
        "controlnets[0]: start_percentage must be less",
    ),
    "image prompt": ({"ip_adapter": [IP_ADAPTER | {"image_url": PNG[:40]}]}, "ip_adapter[0].ip_adapter_image_url: "),
    "IP-Adapter of SDXL": (
        {"ip_adapter": [IP_ADAPTER | {"path": "ip_adapters/sdxl"}]},
        "ip_adapter[0].path: it does not fit the checkpoint",
    ),
    "no such IP-Adapter": (
        {"ip_adapter": [IP_ADAPTER | {"weight_name": "better.safetensors"}]},
        "ip_adapter[0].path: expected better.safetensors in the folder, which has base.bin",
    ),
    "scales of no block": (
        {"ip_adapter": [IP_ADAPTER | {"scale_json": {"down": {"block_9": 1}}}]},
        "ip_adapter[0].scale_json: the UNet has no attention in down.block_9",
    ),
    "no image encoder": (
        {"ip_adapter": [IP_ADAPTER], "image_encoder_path": "controlnets/sd15"},
        "image_encoder_path: expected model.safetensors or pytorch_model.bin",
    ),
    "a LoRA as IC-Light": (
        {"ic_light_model_url": "loras/sd15/peft.safetensors", "ic_light_image_url": PNG},
        "ic_light_model_url: it is no IC-Light model: it is a LoRA",
    ),
    "IC-Light without its background": (
        {"ic_light_model_url": "ic_light/fbc.safetensors", "ic_light_image_url": PNG},
        "ic_light_model_background_image_url: it takes a background, which is missing",
    ),
    "no safety checker": ({"enable_safety_checker": True}, "enable_safety_checker: this server has none"),
}
Send = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def send(server: LocalServer, tiny: Path) -> Send:
    """Sends a request past the client's own checks; (status, message) of the error, ("OK", response) without one."""
    connection = tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))

    def call(fields: Fields | bytes, **options: Any) -> tuple[str, str]:
        base = {"model_name": str(tiny / "sd15"), "prompt": "a fish", "num_inference_steps": 1}
        text = fields if isinstance(fields, bytes) else json.dumps({**base, **fields}).encode()
        tensor = tritonclient.grpc.InferInput("REQUEST", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([text], np.object_))
        try:
            found = connection.infer("lora_image_to_image", [tensor], client_timeout=60, **options)
        except tritonclient.grpc.InferenceServerException as error:
            return str(error.status()), str(error.message()).removeprefix("in ensemble 'lora_image_to_image', ")
        return "OK", found.as_numpy("RESPONSE")[0].decode()

    return call


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_by_its_field(send: Send, name: str) -> None:
    fields, start = BAD[name]
    status, message = send(fields)
    assert status == "StatusCode.INVALID_ARGUMENT", message
    assert message.startswith(start), message
    assert "Traceback" not in message and "\n" not in message
    assert send({})[0] == "OK"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"prompt": NaN}', b"[" * 100_000])
def test_what_is_no_request_is_refused(send: Send, body: bytes) -> None:
    assert send(body)[0] == "StatusCode.INVALID_ARGUMENT"


def test_an_unknown_field_is_a_warning(send: Send) -> None:
    status, response = send({"sync_mode": True, "loras": []})
    assert status == "OK"
    assert json.loads(response)["warnings"] == ["sync_mode: unknown field, ignored"]


def test_a_lora_of_another_architecture_lists_what_differs(send: Send, tiny: Path) -> None:
    status, message = send({"loras": [{"path": str(tiny / "loras" / "sdxl" / "peft.safetensors")}]})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("loras[0].path: ")
    assert "made for" in message and "text_encoder_2." in message


class Trap:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self._path, "executed")


def _pickle(*things: object) -> bytes:
    file = io.BytesIO()
    torch.save({"unet.conv_in.lora_A.weight": list(things)}, file)
    return file.getvalue()


def _safetensors(header: bytes, content: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + content


HOSTILE = {
    "empty": b"",
    "random": bytes(range(256)) * 8,
    "truncated": save({"a": np.zeros((64, 64), np.float32)})[:-100],
    "absurd header": (1 << 62).to_bytes(8, "little") + b"{}",
    "10 GB claimed": _safetensors(b'{"a":{"dtype":"F32","shape":[2500000000],"data_offsets":[0,10000000000]}}'),
    "wrong dtype": save({"unet.conv_in.lora_A.weight": np.zeros((2, 2), np.int64)}),
    "not JSON": _safetensors(b"{" * 512),
}


@pytest.mark.parametrize("field", ["model_name", "unet_name", "loras"])
@pytest.mark.parametrize("name", [*HOSTILE, "pickle with code"])
def test_a_hostile_weight_file_is_refused_by_its_field(send: Send, tmp_path: Path, field: str, name: str) -> None:
    trap = tmp_path / "executed"
    data = HOSTILE.get(name) or (b"" if name == "empty" else _pickle(Trap(trap)))
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    status, message = send({field: [{"path": uri}] if field == "loras" else uri})
    assert status == "StatusCode.INVALID_ARGUMENT", message
    assert message.startswith("loras[0].path: " if field == "loras" else f"{field}: "), message
    assert "Traceback" not in message and len(message) < 2000
    assert not trap.exists()
    assert send({})[0] == "OK"


def test_the_trap_would_have_sprung(tmp_path: Path) -> None:
    torch.load(io.BytesIO(_pickle(Trap(tmp_path / "executed"))), weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_lora_key_that_matches_nothing_is_listed(send: Send) -> None:
    data = save({"unet.nothing.lora_A.weight": np.zeros((2, 2), np.float32)})
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    status, message = send({"loras": [{"path": uri}]})
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("loras[0].path: ") and "unet.nothing.lora_A.weight" in message


def test_the_documented_defaults_are_accepted(send: Send) -> None:
    """The example of the API's page, which spells out its defaults."""
    defaults = {
        "noise_strength": 0.5,
        "loras": [],
        "embeddings": [],
        "controlnets": [],
        "ip_adapter": [],
        "image_encoder_weight_name": "pytorch_model.bin",
        "guidance_scale": 7.5,
        "timesteps": {"method": "default", "array": []},
        "sigmas": {"method": "default", "array": []},
        "prediction_type": "epsilon",
        "image_format": "jpeg",
        "num_images": 1,
        "tile_width": 4096,
        "tile_height": 4096,
        "tile_stride_width": 2048,
        "tile_stride_height": 2048,
    }
    assert send(defaults)[0] == "OK"
