"""Hostile requests and their answers: raw tensors past every check of a client, and pictures that cost a lot."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lorikeet.protocol.tensors import IMAGE_MODEL

SECONDS = 30  # the longest that anything may take
CHEAP = {"model_name": "sd15", "prompt": "a fish", "num_inference_steps": 1, "image_size": {"width": 64, "height": 64}}
_SHOWN = 300  # bytes of a tensor that a failed test shows
Parameter = str | int | bool | float


@dataclass(frozen=True)
class Tensor:
    """A tensor as it goes over the wire, whether that makes sense or not."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)} {self.content[:_SHOWN]!r}"

    def items(self) -> tuple[bytes, ...] | None:
        """The elements of BYTES; None when the content is not a list of elements."""
        found, at = [], 0
        while at < len(self.content):
            begin = at + 4
            at = begin + int.from_bytes(self.content[at:begin], "little")
            if at > len(self.content):
                return None
            found.append(self.content[begin:at])
        return tuple(found)


@dataclass(frozen=True)
class Hostile:
    """A whole request to a model. `hangs_up`: its sender does not wait for the answer.

    `from_prepare`: names of tensors that come from a new answer of `prepare`, in place of those in `tensors`.
    """

    tensors: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    request_id: str = ""
    hangs_up: bool = False
    model: str = IMAGE_MODEL
    from_prepare: tuple[str, ...] = ()

    def __str__(self) -> str:
        tensors = ", ".join(map(str, self.tensors))
        return f"{self.model} {tensors} {self.from_prepare} {dict(self.parameters)} {self.request_id[:_SHOWN]!r}"


@dataclass(frozen=True)
class Answer:
    """A gRPC status (`OK`, `INVALID_ARGUMENT`, ...), the error's message, and the tensors where there is none.

    Answers with equal pictures are equal: other tensors contain the seconds of a request.
    """

    status: str
    message: str
    images: tuple[bytes, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Answer:
        """The answer of a request that succeeded."""
        found = {tensor.name: tensor for tensor in tensors}
        images = found["IMAGES"].items() if "IMAGES" in found else ()
        assert images is not None
        return cls("OK", "", images, found)


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
