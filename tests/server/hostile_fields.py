"""Strategies that draw hostile requests to the public model, field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st

from lorikeet.schema import ImageToImageInput, SchedulerName
from tests.server.hostile import (
    CHEAP,
    Hostile,
    Parameter,
    Tensor,
    asking,
    data_uri,
    encoded,
    octets,
    pixel_bomb,
    strings,
    text_bomb,
)
from tests.unit.runtime.picture_files import segment, with_segment

EXTRA_FIELDS = ("sync_mode", "__class__")
PARAMETERS = ("job_token", "job_priority", "job_timeout_ms", "job_lease_ms", "images", "sequence_id", "unknown")
T = TypeVar("T")
_NUMBERS: tuple[Any, ...] = (0, -1, 1, 2, 3, 0.5, -0.5, 1.5, -0.0, 5e-324, 1e-45, 3.5e38, 1e308, -1e308)
_NUMBERS += (float("nan"), float("inf"), float("-inf"), 2**31, -(2**63), 2**63, 2**64 - 1, 2**64, 10**18, 10**400)
_TEXTS = (
    "",
    "\0",
    "x" * 300,
    "x" * 100_000,
    "../..",
    "/etc/passwd",
    "\ud800",
    "NaN",
    "1e9",
    "None",
    "{}",
    "\u202e\n\x1b[2J",
)
_CHARACTERS = st.characters(codec=None)
_PROMPTS = (
    "(" * 9000,
    "fish " * 2000,
    "x" * 10_001,
    "(fish:1.4), <s0>",
    "[fish]",
    "(fish:1e)",
    "BREAK " * 40,
    "(a:99)" * 1500,
)


def _nested(depth: int) -> Any:
    return [] if depth == 0 else [_nested(depth - 1)]


JUNK = st.one_of(
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TEXTS),
    st.text(_CHARACTERS, max_size=12),
    st.sampled_from([None, True, False, [], {}, [[]], {"": None}, {"path": {}}, _nested(31), _nested(200)]),
    st.lists(st.sampled_from(_NUMBERS), max_size=4),
    st.just(list(range(5000))),
)


def _blobs(tiny: Path) -> st.SearchStrategy[bytes]:
    """Files: whole, damaged in one place, cut off, and none at all."""
    pictures = [encoded(), encoded("JPEG"), encoded("GIF"), encoded("TIFF"), pixel_bomb(5000), text_bomb(2)]
    known = st.sampled_from([*pictures, *((tiny / name).read_bytes() for name in _WEIGHT_FILES)])
    place = st.integers(0, 2000)
    damaged = st.builds(lambda b, at, junk: b[:at] + junk + b[at + len(junk) :], known, place, st.binary(max_size=8))
    cut = st.builds(lambda blob, at: blob[:at], known, place)
    return st.one_of(known, damaged, cut, st.binary(max_size=64))


_EMBEDDINGS = (
    *(f"embeddings/sd15/{name}" for name in ("one.safetensors", "three.pt")),
    "embeddings/sdxl/two.safetensors",
)
_WEIGHT_FILES = ("loras/sd15/peft.safetensors", "loras/sd15/kohya.safetensors", "loras/sdxl/kohya.safetensors")
_PLACES: tuple[str, ...] = (
    *("sd15", "sdxl", "lcm", "everything", "single/sd15.safetensors", "single/sdxl.safetensors", "sd15/unet"),
    *(*_WEIGHT_FILES, "loras", "complete", "sd15/../sd2", "sd15/../../..", "sd15/./unet/config.json"),
    *(
        "way_out",
        "link-picture.png",
        "checkpoint",
        "fifo",
        "loop",
        "möwe.png",
        "/etc/passwd",
        "~/x",
        "owner/name",
        "a" * 5000,
    ),
    *("tensor:0", "tensor:1", "tensor:9", "tensor:-1", "tensor:", "tensor:1e0", "tensor:٣", "tensor:" + "9" * 50),
    *("data:", "data:,", "data:;base64,=", "data:;base64,@@", "data:,%00%ff%zz", "data:image/png;base64," + "A" * 5),
    *("file:///etc/passwd", "ftp://127.0.0.1/x", "https://", "https://[", "https://[::1]/x", "https://localhost/x"),
    *("https://127.0.0.1:1/", "https://2130706433/", "https://0x7f.1/", "https://10.0.0.1/", "https://169.254.169.254"),
    *(
        "https://user:word@127.0.0.1/",
        "https://127.0.0.1:99999/",
        "HTTPS://LOCALHOST",
        "http:///x",
        "://",
        "https://\0",
    ),
)


def _sources(urls: Sequence[str], blobs: st.SearchStrategy[bytes]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from((*_PLACES, *urls)), blobs.map(data_uri), st.text(_CHARACTERS, max_size=20))


def _fitting(sources: st.SearchStrategy[str]) -> dict[str, st.SearchStrategy[Any]]:
    """Values that are right, or nearly: they come further than junk does."""
    number = st.sampled_from(_NUMBERS)
    schedule = {
        "method": st.sampled_from(["array", "array", "default", "linear", None]),
        "array": st.lists(st.sampled_from([999, 801.5, 500, 499, 14.6, 3, 1, 0, *_NUMBERS]), max_size=6),
    }
    lora = st.fixed_dictionaries({"path": sources}, optional={"scale": number, "adapter_name": number})
    tokens = st.lists(st.sampled_from(["<s0>", "fish", " ", "a", "x" * 101, "\0"]), max_size=4)
    embedding = st.fixed_dictionaries({"path": st.sampled_from(_EMBEDDINGS) | sources}, optional={"tokens": tokens})
    side = st.sampled_from([64, 65, 72, 96, 63, 0, 9000, 14142, 2**31, -64, 64.5, "64"])
    tile = st.sampled_from([64, 128, 4096, 4097, 63, 2048])
    files = ("model_name", "unet_name", "image_url", "image_encoder_path", "ic_light_model_url")
    return {
        **dict.fromkeys(files, sources),
        **dict.fromkeys(("tile_width", "tile_height", "tile_stride_width", "tile_stride_height"), tile),
        **dict.fromkeys(("noise_strength", "guidance_scale", "eta"), st.sampled_from([0, 0.5, 1, 1.0001, 7.5, 20, 21])),
        "loras": st.lists(lora, max_size=3) | st.just([{"path": _WEIGHT_FILES[0]}] * 101),
        "image_size": st.fixed_dictionaries({}, optional={"width": side, "height": side}),
        "timesteps": st.fixed_dictionaries({}, optional=schedule),
        "sigmas": st.fixed_dictionaries({}, optional=schedule),
        "scheduler": st.sampled_from([*(name.value for name in SchedulerName), "Heun"]),
        "seed": st.sampled_from([0, 2**63, 2**64 - 1, 2**64]),
        "num_inference_steps": st.sampled_from([1, 2, 3, 0, 151]),
        "num_images": st.sampled_from([1, 2, 0, 9]),
        "clip_skip": st.sampled_from([0, 1, 2, 3]),
        "image_format": st.sampled_from(["png", "jpeg", "webp"]),
        "prediction_type": st.sampled_from(["epsilon", "v_prediction", "sample"]),
        "prompt": st.text(_CHARACTERS, max_size=200) | st.sampled_from(_PROMPTS),
        "prompt_weighting": st.just(True),
        "embeddings": st.lists(embedding, max_size=3),
        "variant": st.sampled_from(["fp16", "../x", "x" * 300]),
    }


def hostile_requests(tiny: Path, urls: Sequence[str]) -> st.SearchStrategy[Hostile]:
    """Cheap requests with a few fields replaced, each by a value that fits or by junk; some bodies and tensors broken.

    `urls` are of a server that may be asked.
    """
    blobs = _blobs(tiny)
    fitting = _fitting(_sources(urls, blobs))
    names = (*ImageToImageInput.model_fields, *fitting, *EXTRA_FIELDS)
    pair = st.sampled_from(names).flatmap(
        lambda name: st.tuples(st.just(name), mostly(fitting.get(name, JUNK), JUNK, 3))
    )
    fields = st.lists(pair, max_size=3).map(lambda pairs: {**CHEAP, **dict(pairs)})
    whole = fields.map(_body)
    body = mostly(whole, st.builds(_broken, whole, st.integers(0, 200)), 12)
    tensors = st.builds(_tensors, body, st.lists(blobs, max_size=2), mostly(st.none(), blobs, 4))
    return st.builds(
        Hostile,
        tensors=mostly(tensors, st.builds(_bent, tensors, _TENSORS), 12),
        parameters=mostly(st.just({}), st.dictionaries(st.sampled_from(PARAMETERS), _VALUES, max_size=2), 4),
        request_id=st.sampled_from(["", "", "", "one", "x" * 1000, "\u2603\n"]),
        hangs_up=mostly(st.just(False), st.just(True), 16),
    )


def heavy_requests() -> st.SearchStrategy[Hostile]:
    """Requests that are large, or that cost a careless server far more than they cost their sender."""
    exif_segments = with_segment(encoded("JPEG"), segment(0xE1, b"Exif\0\0") * 600_000)
    bodies = (b'{"loras": [' + b"5," * 5_000_000 + b"5]}", b'{"x": [' + b"[]," * 9_000_000 + b"[]]}")
    return st.sampled_from(
        [
            *(Hostile((strings("REQUEST", [body]),)) for body in bodies),
            asking([exif_segments], image_url="tensor:0"),
            asking([text_bomb(100)], image_url="tensor:0"),
            asking([pixel_bomb(20_000)], image_url="tensor:0"),
            asking([b"x"] * 20_000),
        ]
    )


def mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T], times: int) -> st.SearchStrategy[T]:
    """`usual`, and once in a while `other`."""
    return st.integers(0, times).flatmap(lambda number: usual if number else other)


def _body(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def _broken(body: bytes, place: int) -> bytes:
    return body[:place] + b"\xff{" + body[place + 1 :]


def _tensors(body: bytes, files: list[bytes], image: bytes | None) -> tuple[Tensor, ...]:
    sent = [strings("REQUEST", [body])]
    if files:
        sent.append(strings("FILES", files))
    return tuple(sent if image is None else [*sent, octets("IMAGE", image)])


def _bent(tensors: tuple[Tensor, ...], other: Tensor) -> tuple[Tensor, ...]:
    return tuple(other if tensor.name == other.name else tensor for tensor in tensors)


_TENSORS = st.builds(
    Tensor,
    st.sampled_from(["REQUEST", "FILES", "IMAGE"]),
    st.sampled_from(["BYTES", "UINT8", "FP32", "INT64", "BOOL", "NONE"]),
    st.lists(st.sampled_from([0, 1, 2, 64, -1, 10**12]), max_size=3).map(tuple),
    st.binary(max_size=16),
)
_VALUES: st.SearchStrategy[Parameter] = st.sampled_from(
    ["", "data_uri", "1", "-1", "9" * 30, "\u2603", True, 0, 1, 3, 50, 10_000, -1, 2**63 - 1, 0.5]
)
