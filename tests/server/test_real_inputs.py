"""Pictures and fields as real clients send them: what is odd about them changes no pixel, or is a warning."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from PIL import Image

from deploy.local_server import LocalServer
from tests.unit.runtime.picture_files import (
    HEIGHT,
    PICTURE,
    WIDTH,
    chunk,
    encoded,
    exif,
    png_of,
    segment,
    stored,
    with_chunk,
    with_segment,
)

MODEL = "lora_image_to_image"
LONG = zlib.compress(b"a" * (1 << 21))
PNG, JPEG = (encoded(Image.fromarray(PICTURE), name) for name in ("PNG", "JPEG"))
LONG_PROMPT = ", ".join(["a red fish"] * 60) + ", a large blue bird"


@dataclass(frozen=True)
class Reply:
    """The response and the first picture, RGB [H, W, 3]; or the error."""

    response: dict[str, Any]
    pixels: Any
    error: str = ""


Send = Callable[..., Reply]


@pytest.fixture(scope="module")
def send(server: LocalServer, tiny: Path) -> Send:
    """Sends JSON that no client's own check has seen, with at most one file."""
    connection = tritonclient.grpc.InferenceServerClient(server.grpc.removeprefix("grpc://"))

    def tensor(name: str, content: bytes) -> Any:
        found = tritonclient.grpc.InferInput(name, [1], "BYTES")
        found.set_data_from_numpy(np.array([content], np.object_))
        return found

    def call(picture: bytes | None = None, **fields: Any) -> Reply:
        body = {"model_name": str(tiny / "sd15"), "prompt": "a fish", "num_inference_steps": 1, "seed": 7, **fields}
        if picture is not None:
            body |= {"image_url": "tensor:0", "noise_strength": 0}
        inputs = [tensor("REQUEST", json.dumps(body).encode())]
        try:
            found = connection.infer(MODEL, [*inputs, tensor("FILES", picture)] if picture else inputs)
        except tritonclient.grpc.InferenceServerException as error:
            return Reply({}, None, str(error.message()).removeprefix(f"in ensemble '{MODEL}', "))
        with Image.open(io.BytesIO(found.as_numpy("IMAGES")[0])) as image:
            return Reply(json.loads(found.as_numpy("RESPONSE")[0]), np.asarray(image))

    return call


ODD_PICTURES = {
    "eXIf with a text": (PNG, with_chunk(PNG, chunk(b"eXIf", b"b'Exif\\x00\\x00II*'"))),
    "eXIf cut": (PNG, with_chunk(PNG, chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"))),
    "zTXt of 2 MB": (PNG, with_chunk(PNG, chunk(b"zTXt", b"workflow\0\0" + LONG))),
    "iTXt of 2 MB behind": (PNG, with_chunk(PNG, chunk(b"iTXt", b"prompt\0\x01\0\0\0" + LONG), behind_the_pixels=True)),
    "iCCP of 2 MB": (PNG, with_chunk(PNG, chunk(b"iCCP", b"ICC\0\0" + LONG))),
    "a wrong checksum": (PNG, with_chunk(PNG, chunk(b"tEXt", b"a\0b")[:-1] + b"?")),
    "PNG on its side": (PNG, with_chunk(encoded(stored(6), "PNG"), chunk(b"eXIf", exif(6)))),
    "Exif of a JPEG cut": (JPEG, with_segment(JPEG, segment(0xE1, b"Exif\0\0II\x2a\0\x08\0\0\0\1\0\x12"))),
    "an invalid orientation": (JPEG, with_segment(JPEG, segment(0xE1, b"Exif\0\0" + exif(9)))),
    "ICC of a JPEG cut": (JPEG, with_segment(JPEG, segment(0xE2, b"ICC_PROFILE\0\1"))),
}


def test_metadata_changes_no_pixel(send: Send) -> None:
    plain = {data: send(data) for data in (PNG, JPEG)}
    for name, (clean, odd) in ODD_PICTURES.items():
        found = send(odd)
        assert not found.error, f"{name}: {found.error}"
        assert np.array_equal(found.pixels, plain[clean].pixels), name
        assert found.response["warnings"] == []


def test_16_bit_grey_with_a_transparent_value_is_not_white(send: Send) -> None:
    grey = PICTURE[..., 0]
    rows = b"".join(b"\0" + row.tobytes() for row in (grey.astype(">u2") * 257))
    odd = png_of(16, 0, rows, chunk(b"tRNS", struct.pack(">H", 12345)))
    plain = encoded(Image.fromarray(grey).convert("RGB"), "PNG")
    assert Image.open(io.BytesIO(odd)).size == (WIDTH, HEIGHT)
    assert np.array_equal(send(odd).pixels, send(plain).pixels)


def test_null_and_numbers_as_text_are_as_absent_fields_and_numbers(send: Send) -> None:
    nulls = dict.fromkeys(("negative_prompt", "loras", "timesteps", "sigmas", "scheduler", "image_size", "image_url"))
    odd = send(**nulls, num_inference_steps="2", guidance_scale="7.5", seed="42")
    usual = send(num_inference_steps=2, guidance_scale=7.5, seed=42)
    assert not odd.error
    assert np.array_equal(odd.pixels, usual.pixels)
    assert (odd.response["seed"], odd.response["warnings"]) == (42, [])


def test_a_null_scale_is_the_default_scale(send: Send, tiny: Path) -> None:
    path = str(tiny / "loras" / "sd15" / "kohya.safetensors")
    odd, usual = (send(loras=[lora]) for lora in ({"path": path, "scale": None}, {"path": path, "scale": "1"}))
    assert not odd.error
    assert np.array_equal(odd.pixels, usual.pixels)


def test_seed_minus_one_is_random(send: Send) -> None:
    found = {send(seed=seed).response["seed"] for seed in (-1, "-1", None)}
    assert len(found) == 3 and min(found) >= 0


def test_the_greatest_seed_is_used(send: Send) -> None:
    assert send(seed=2**64 - 1).response["seed"] == 2**64 - 1


def test_what_the_prompts_lose_is_in_the_warnings(send: Send) -> None:
    warnings = send(
        prompt=LONG_PROMPT, negative_prompt="(red fish:1.4), [sea], <lora:style:0.8>", guidence_scale=3, sync_mode=True
    ).response["warnings"]
    assert [warning.partition(":")[0] for warning in warnings] == [
        "guidence_scale", "sync_mode", "negative_prompt", "negative_prompt", "prompt",
    ]  # fmt: skip
    assert warnings[0] == "guidence_scale: unknown field, ignored; did you mean guidance_scale?"
    assert "'<lora:style:0.8>' is read as plain text" in warnings[2]
    assert "'(red fish:1.4)', '[sea]' are read as plain text" in warnings[3]
    assert "the text encoder reads 75 tokens; the last " in warnings[4] and " are ignored: '" in warnings[4]


@pytest.mark.parametrize(
    ("fields", "near"),
    [
        ({"scheduler": "Euler a"}, "Euler A"),
        ({"scheduler": "dpmpp_2m_karras"}, "DPM++ 2M Karras"),
        ({"image_format": "jpg"}, "jpeg"),
        ({"prediction_type": "v-prediction"}, "v_prediction"),
        ({"image_size": "Square HD"}, "square_hd"),
    ],
)
def test_an_error_proposes_the_nearest_name(send: Send, fields: dict[str, str], near: str) -> None:
    ((field, value),) = fields.items()
    error = send(**fields).error
    assert error.startswith(f"{field}: Input should be ")
    assert error.endswith(f"(got {value!r}): did you mean {near!r}?")
