"""Hostile requests: raw tensors past every check of a client, and strategies that draw them field by field."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from hypothesis import strategies as st
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from lorikeet.protocol.tensors import IMAGE_MODEL
from lorikeet.schema import ImageToImageInput, SchedulerName

SECONDS = 30  # the longest that anything may take
CHEAP = {"model_name": "sd15", "prompt": "a fish", "num_inference_steps": 1, "image_size": {"width": 64, "height": 64}}
_SHOWN = 300  # bytes of a tensor that a failed test shows
_PREFIX = f"in ensemble '{IMAGE_MODEL}', "
_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
T = TypeVar("T")
Parameter = str | int | bool | float


@dataclass(frozen=True)
class Tensor:
    """An input as it goes over the wire, whether that makes sense or not."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)} {self.content[:_SHOWN]!r}"


@dataclass(frozen=True)
class Hostile:
    """A whole request. `hangs_up`: its sender does not wait for the answer."""

    tensors: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    request_id: str = ""
    hangs_up: bool = False

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.tensors))} {dict(self.parameters)} {self.request_id[:_SHOWN]!r}"


@dataclass(frozen=True)
class Answer:
    """A gRPC status (`OK`, `INVALID_ARGUMENT`, ...), the error's message, and the pictures where there is none."""

    status: str
    message: str
    images: tuple[bytes, ...] = ()


def strings(name: str, items: Sequence[bytes]) -> Tensor:
    """BYTES [n]."""
    return Tensor(name, "BYTES", (len(items),), b"".join(struct.pack("<I", len(item)) + item for item in items))


def octets(name: str, data: bytes) -> Tensor:
    """UINT8 [n]."""
    return Tensor(name, "UINT8", (len(data),), data)


def asking(files: Sequence[bytes] = (), **fields: Any) -> Hostile:
    """A request that is cheap but for the fields that are given; what is no JSON (NaN) goes as Python writes it."""
    body = strings("REQUEST", [json.dumps({**CHEAP, **fields}).encode()])
    return Hostile((body, strings("FILES", files)) if files else (body,))


class Wire:
    """A connection that sends whatever it is given."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address.removeprefix("grpc://"), options=_UNLIMITED)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def send(self, request: Hostile) -> Answer:
        return self.send_all([request])[0]

    def start(self, request: Hostile) -> Any:
        """Send it and return the call in flight, a future of gRPC."""
        message = service_pb2.ModelInferRequest(model_name=IMAGE_MODEL, id=request.request_id)
        for tensor in request.tensors:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(tensor.content)
        kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        for name, value in request.parameters.items():
            setattr(message.parameters[name], kinds[type(value)], value)
        return self._stub.ModelInfer.future(message, timeout=SECONDS)

    def send_all(self, requests: Sequence[Hostile]) -> list[Answer]:
        """Send them all at once, and wait for the answers."""
        calls = [self.start(request) for request in requests]
        for call, request in zip(calls, requests, strict=True):
            if request.hangs_up:
                call.cancel()
        return [answer(call) for call in calls]


def answer(call: Any) -> Answer:
    """What a call in flight ends with."""
    try:
        result = call.result()
    except grpc.FutureCancelledError:
        return Answer("CANCELLED", "")
    except grpc.RpcError as error:
        return Answer(error.code().name, str(error.details()).removeprefix(_PREFIX))
    names = [output.name for output in result.outputs]
    return Answer("OK", "", _items(result.raw_output_contents[names.index("IMAGES")]))


def _items(content: bytes) -> tuple[bytes, ...]:
    found = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        found.append(content[4 : 4 + length])
        content = content[4 + length :]
    return tuple(found)


def encoded(file_format: str = "PNG") -> bytes:
    """A small picture, 72x64."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((72, 64)).convert("RGB").save(buffer, file_format)
    return buffer.getvalue()


def pixel_bomb(side: int) -> bytes:
    """A whole, valid PNG of side x side black pixels; its data deflates a thousandfold."""
    return _png(side, b"IDAT", zlib.compress(bytes(side * (1 + -(-side // 8)))))


def text_bomb(megabytes: int) -> bytes:
    """A small PNG with a compressed comment of so many megabytes."""
    comment = b"Comment\0\0" + zlib.compress(bytes(megabytes << 20))
    return _png(64, b"zTXt", comment, b"IDAT", zlib.compress(bytes(64 * 9)))


def _png(side: int, *parts: bytes) -> bytes:
    """A PNG of one bit a pixel: kinds and contents of its chunks in turn."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (b"IHDR", header, *parts, b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks[0::2], chunks[1::2]))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def data_uri(content: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


# The strategies

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


def _nested(depth: int) -> Any:
    return [] if depth == 0 else [_nested(depth - 1)]


_JUNK = st.one_of(
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
        "prompt": st.text(_CHARACTERS, max_size=200) | st.sampled_from(["(" * 9000, "fish " * 2000, "x" * 10_001]),
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
        lambda name: st.tuples(st.just(name), _mostly(fitting.get(name, _JUNK), _JUNK, 3))
    )
    fields = st.lists(pair, max_size=3).map(lambda pairs: {**CHEAP, **dict(pairs)})
    whole = fields.map(_body)
    body = _mostly(whole, st.builds(_broken, whole, st.integers(0, 200)), 12)
    tensors = st.builds(_tensors, body, st.lists(blobs, max_size=2), _mostly(st.none(), blobs, 4))
    return st.builds(
        Hostile,
        tensors=_mostly(tensors, st.builds(_bent, tensors, _TENSORS), 12),
        parameters=_mostly(st.just({}), st.dictionaries(st.sampled_from(PARAMETERS), _VALUES, max_size=2), 4),
        request_id=st.sampled_from(["", "", "", "one", "x" * 1000, "\u2603\n"]),
        hangs_up=_mostly(st.just(False), st.just(True), 16),
    )


def _mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T], times: int) -> st.SearchStrategy[T]:
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
EXTRA_FIELDS = ("sync_mode", "__class__")
PARAMETERS = ("job_token", "job_priority", "job_timeout_ms", "images", "sequence_id", "unknown")
_VALUES: st.SearchStrategy[Parameter] = st.sampled_from(
    ["", "data_uri", "1", "-1", "9" * 30, "\u2603", True, 0, 1, 3, 50, 10_000, -1, 2**63 - 1, 0.5]
)
