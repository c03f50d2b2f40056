"""Headers of `.safetensors` files: names, shapes and dtypes, read without torch and without touching the data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from runtime.files.store import file_stamp

FLOATS = ("F64", "F32", "F16", "BF16")
# The largest genuine headers, of LoRAs that tell all of their training, have a few megabytes.
_MAX_HEADER = 32 << 20
_MAX_TENSORS = 1 << 16
_MAX_REMEMBERED = 1 << 20  # bytes of a header: 64 of the largest would fill the memory
_SHOWN = 200  # characters of what the library says, which repeats a file's own names
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_LENGTH = 8  # bytes of the header's length, with which the file begins


class WeightFileError(ValueError):
    """The file is not a usable `.safetensors` file; the message is fit for the client."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape and safetensors' dtype name (`F32`, `BF16`, ...) of one tensor, and where in the file its bytes are."""

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: its tensors, and the free text that its writer left (`__metadata__`)."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a file. The library checks it against the file's size: no claimed gigabyte is believed.

    Raises WeightFileError: damaged, truncated, or of another format.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(_LENGTH), "little")
        if size > _MAX_HEADER:
            raise ValueError(f"its header claims more than {_MAX_HEADER} bytes")
        return _remembered(path, file_stamp(path)) if size <= _MAX_REMEMBERED else _read_header(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightFileError(f"not a readable .safetensors file ({str(error)[:_SHOWN]})") from error


def read_floats(path: Path, name: str) -> npt.NDArray[np.float32]:
    """A small tensor's values, flat. `name` is in the file's header, which was read and found good.

    numpy has no bfloat16, which the library therefore does not give: it is the upper half of a float32.
    """
    info = read_header(path).tensors[name]
    with path.open("rb") as file:
        file.seek(info.begin)
        data = file.read(info.end - info.begin)
    if info.dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view(np.float32)
    return np.frombuffer(data, _NUMPY[info.dtype]).astype(np.float32)


@lru_cache(maxsize=64)
def _remembered(path: Path, _stamp: str) -> Header:
    return _read_header(path)


def _read_header(path: Path) -> Header:
    with safe_open(path, framework="numpy") as checked:
        if len(checked.keys()) > _MAX_TENSORS:
            raise ValueError(f"it holds more than {_MAX_TENSORS} tensors")
        metadata = checked.metadata() or {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        entries: dict[str, Any] = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return Header({name: _info(entry, _LENGTH + length) for name, entry in entries.items()}, metadata)


def _info(entry: dict[str, Any], data: int) -> TensorInfo:
    """What the header says of a tensor; the tensors' bytes begin at `data`."""
    begin, end = entry["data_offsets"]
    return TensorInfo(tuple(entry["shape"]), entry["dtype"], data + begin, data + end)
