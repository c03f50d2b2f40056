"""Headers of `.safetensors` files: names, shapes and dtypes, read without torch and without touching the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

FLOATS = ("F64", "F32", "F16", "BF16")


class WeightFileError(ValueError):
    """The file is not a usable `.safetensors` file; the message is fit for the client."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape and safetensors' dtype name (`F32`, `BF16`, ...) of one tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a file holds: its tensors, and the free text that its writer left (`__metadata__`)."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a file. The library checks it against the file's size.

    Raises WeightFileError: damaged, truncated, or of another format.
    """
    try:
        stat = path.stat()
        return _read_header(path, stat.st_mtime_ns, stat.st_size)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightFileError(f"not a readable .safetensors file ({error})") from error


@lru_cache(maxsize=256)
def _read_header(path: Path, _mtime_ns: int, _size: int) -> Header:
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        tensors = {name: TensorInfo(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
        return Header(tensors, file.metadata() or {})
