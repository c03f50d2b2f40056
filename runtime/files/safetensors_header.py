"""Reads the header of a `.safetensors` file, a JSON object, and checks it against the size of the file. No torch.

The checks are those of the library `safetensors`. The library gives no offsets, so a JSON parser would be needed too.
This reader takes half of the time of both, does not map the file, and refuses a header with too many values before it
is parsed. Of a field that an entry has twice, the last one counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from lorikeet.protocol.shorten import shorten
from runtime.files.json_size import json_size

# The largest published headers, of LoRAs that record all of their training, have a few megabytes.
MAX_HEADER = 16 << 20
# Published checkpoints have up to 5,000 tensors; a LoRA of all layers of SDXL, of the kind with most tensors, 13,000.
MAX_TENSORS = 1 << 14
_MAX_VALUES = 1 << 18  # JSON names and values; a tensor has 10, and one for each axis
_MAX_DEPTH = 64
_MAX_AXES = 64  # as in torch
_MAX_SIZE = 1 << 63
_LENGTH = 8  # a file begins with the length of its header, in 8 bytes
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


class TensorInfo(NamedTuple):
    """Shape and safetensors' dtype name (`F32`, `BF16`, ...) of one tensor; its bytes are `begin` to `end` of the
    file."""

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


class HeaderText(NamedTuple):
    """A header that is not parsed: its JSON in UTF-8, and the size of its file in bytes."""

    json: bytes
    file_bytes: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file by name, in the header's order, and the text that its writer added (`__metadata__`)."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header_text(path: Path) -> HeaderText:
    """The header of a file, not parsed. Raises ValueError for a truncated or too long one, and OSError."""
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        length = _length(descriptor)
        text = HeaderText(os.pread(descriptor, length, _LENGTH), os.fstat(descriptor).st_size)
    if len(text.json) < length or text.file_bytes < _LENGTH + length:
        raise ValueError("it ends within its header")
    return text


def parse_header(text: HeaderText) -> Header:
    """The header of a text, checked against the size of its file. Raises ValueError that says what is wrong."""
    _check_size(text.json)
    entries = from_json(text.json, allow_inf_nan=False)
    if not isinstance(entries, dict):
        raise ValueError("its header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not _are(metadata.values(), str):
        raise ValueError("its __metadata__ is not an object of texts")
    if len(entries) > MAX_TENSORS:
        raise _too_many()
    return Header(_tensors(entries, _LENGTH + len(text.json), text.file_bytes), metadata)


def _length(descriptor: int) -> int:
    start = os.pread(descriptor, _LENGTH, 0)
    if len(start) < _LENGTH:
        raise ValueError("it is shorter than 8 bytes")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header claims more than {MAX_HEADER} bytes")
    return length


def _check_size(text: bytes) -> None:
    """Raises ValueError for a header that would take much time or memory to parse."""
    # This count includes the characters in strings; only a header with many of them is read a second time.
    if len(text) - len(text.translate(None, b",:[{")) > _MAX_VALUES:
        size = json_size(text, _MAX_VALUES, _MAX_DEPTH)
        if size.values > _MAX_VALUES or size.depth > _MAX_DEPTH:
            raise _too_many()


def _too_many() -> ValueError:
    return ValueError(f"it holds more than {MAX_TENSORS} tensors, or more than {_MAX_VALUES} names and values")


def _tensors(entries: dict[str, Any], data: int, size: int) -> dict[str, TensorInfo]:
    """The entries of the header. Their offsets count from the byte `data` of a file of `size` bytes."""
    try:
        dtypes = [entry["dtype"] for entry in entries.values()]
        shapes = [entry["shape"] for entry in entries.values()]
        places = [entry["data_offsets"] for entry in entries.values()]
        unknown = set(dtypes) - _BITS.keys()
    except (KeyError, TypeError):
        raise ValueError("an entry of its header is not a dtype, a shape and data_offsets") from None
    if unknown:
        raise ValueError(f"it has a tensor of the unknown dtype {shorten(str(unknown.pop()), 20)}")
    _check_numbers(shapes, places)
    _check_places(places, size - data)
    tensors = {}
    for name, dtype, shape, (begin, end) in zip(entries, dtypes, shapes, places, strict=True):
        if prod(shape) * _BITS[dtype] != 8 * (end - begin):
            raise ValueError(f"{shorten(name, 100)} has {end - begin} bytes, which its shape and dtype do not fit")
        tensors[name] = TensorInfo(tuple(shape), dtype, data + begin, data + end)
    return tensors


def _check_numbers(shapes: list[Any], places: list[Any]) -> None:
    """Raises ValueError unless both are lists of lists of sizes. One pass for all tensors is the fastest."""
    if not _are(chain(shapes, places), list) or set(map(len, places)) - {2}:
        raise ValueError("a shape or data_offsets in its header is not a list of integers")
    numbers = list(chain(chain.from_iterable(shapes), chain.from_iterable(places)))
    if not _are(numbers, int) or min(numbers, default=0) < 0 or max(numbers, default=0) >= _MAX_SIZE:
        raise ValueError("a shape or data_offsets in its header has a number that is no size")
    if max(map(len, shapes), default=0) > _MAX_AXES:
        raise ValueError(f"it has a tensor of more than {_MAX_AXES} axes")
    # torch multiplies the sizes of an empty tensor too.
    if any(prod(filter(None, shape)) >= _MAX_SIZE for shape in shapes if 0 in shape):
        raise ValueError("it has an empty tensor whose shape has too large numbers")


def _check_places(places: list[list[int]], size: int) -> None:
    """Raises ValueError unless the tensors, one after the other, fill the `size` bytes after the header."""
    ordered = sorted(places)
    if [*(begin for begin, _ in ordered), size] != [0, *(end for _, end in ordered)]:
        raise ValueError("its tensors do not fill the file: it is incomplete or damaged")


def _are(values: Iterable[object], kind: type) -> bool:
    """Whether all values are of this very type; bool is a subclass of int, and no size."""
    return set(map(type, values)) <= {kind}
