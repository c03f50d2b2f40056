"""Reads `.safetensors` files: the header without torch, and single tensors on demand.

Tensors are read, not mapped: a mapped file that another process truncates ends this process, and mapping page by page
is slower than the copy.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from lorikeet.protocol.shorten import shorten
from runtime.files.not_weights import describe_not_weights, read_head
from runtime.files.store import FileChangedError, file_fingerprint

if TYPE_CHECKING:
    import torch

FLOATS = ("F64", "F32", "F16", "BF16")
# The largest published headers, of LoRAs that record all of their training, have a few megabytes.
_MAX_HEADER = 32 << 20
_MAX_TENSORS = 1 << 16
_MAX_REMEMBERED = 1 << 20  # bytes of a header in the cache, which holds 64 of them
_LENGTH = 8  # a file begins with the length of its header, in 8 bytes
_PORTION = 4 << 20  # bytes
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_TORCH = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


class WeightFileError(ValueError):
    """The file is not a usable `.safetensors` file; the message is fit for the client."""


class NotFiniteError(ValueError):
    """A number of a tensor is not finite in float32; the message is fit for the client."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{shorten(name)} has a value that is not finite in float32")


@dataclass(frozen=True)
class TensorInfo:
    """Shape and safetensors' dtype name (`F32`, `BF16`, ...) of one tensor; its bytes are `begin` to `end` of the
    file."""

    shape: tuple[int, ...]
    dtype: str
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file by name, and the text that its writer added (`__metadata__`)."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """The header of a file, checked by the library against the size of the file.

    Raises WeightFileError: damaged, truncated, or of another format.
    """
    try:
        if _header_size(path) > _MAX_REMEMBERED:
            return _read_header(path)
        return _remembered(path, file_fingerprint(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def check_header(path: Path) -> None:
    """Raises WeightFileError as `read_header` does. The header is not remembered: the file will get another name."""
    try:
        _header_size(path)
        _read_header(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


class SafetensorsFile:
    """An open file. Any thread may read from it. It is closed when it is no longer referenced.

    Small tensors that are adjacent in the file are read and checked together, because a call costs more than such a
    tensor. Those that were not asked for yet are kept until then: ask in the order of the file, each tensor once.
    """

    def __init__(
        self, path: Path, fingerprint: str = "", names: Collection[str] | None = None, *, finite: bool = False
    ) -> None:
        """`names`: the tensors that `read` will be called for (default: all). `finite`: `read` refuses NaN and
        infinity. `fingerprint`: see `StoredFile`.

        Raises WeightFileError, and FileChangedError when the file or one of `names` is gone or the fingerprint differs.
        """
        self._path, self._fingerprint, self._finite = path, fingerprint, finite
        self.header = read_header(path)
        tensors = self.header.tensors
        if names is None:
            names = tensors.keys()
        if not tensors.keys() >= set(names):
            raise FileChangedError(path)
        portions = _portions({name: tensors[name] for name in names})
        self._portions = {name: portion for portion in portions for name in portion}
        self._kept: dict[str, torch.Tensor] = {}
        self._reading = threading.Lock()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FileChangedError(path) from error
        weakref.finalize(self, os.close, self._descriptor)
        self._check_unchanged()

    @property
    def names(self) -> list[str]:
        """The tensors that `read` can be called for, in the order of the file."""
        return list(self._portions)

    def read(self, name: str) -> torch.Tensor:
        """A tensor in new memory, which small tensors share with their neighbours. Its dtype is a float, an integer or
        bool.

        Raises WeightFileError for another dtype, FileChangedError when the file was changed or truncated, and
        NotFiniteError (see `finite`) for this tensor or a neighbour.
        """
        with self._reading:
            if name not in self._kept:
                self._kept |= self._read_portion(self._portions[name])
            return self._kept.pop(name)

    def read_floats(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a float tensor, flat. It needs no torch. Raises FileChangedError."""
        info = self.header.tensors[name]
        data = np.empty(info.end - info.begin, np.uint8)
        self._read_into(data, info.begin)
        if info.dtype == "BF16":  # unknown to numpy: the upper half of a float32
            return (data.view("<u2").astype("<u4") << 16).view(np.float32)
        return data.view(_NUMPY[info.dtype]).astype(np.float32)

    def _read_portion(self, portion: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
        import torch

        infos = list(portion.values())
        first, last = infos[0], infos[-1]
        if first.dtype not in _TORCH:
            name = next(iter(portion))
            raise WeightFileError(f"{shorten(name)} has dtype {first.dtype}; expected one of {', '.join(_TORCH)}")
        data = torch.empty(last.end - first.begin, dtype=torch.uint8)
        self._read_into(data.numpy(), first.begin)
        numbers = data.view(getattr(torch, _TORCH[first.dtype]))
        parts = torch.split(numbers, [(info.end - info.begin) // numbers.itemsize for info in infos])
        read = {name: part.view(info.shape) for (name, info), part in zip(portion.items(), parts, strict=True)}
        if self._finite and first.dtype in FLOATS and not _is_finite(numbers):
            raise NotFiniteError(next(name for name, part in read.items() if not _is_finite(part)))
        return read

    def _read_into(self, data: npt.NDArray[np.uint8], begin: int) -> None:
        view = data.data
        while view:  # Linux reads at most 2 GB a call
            count = os.preadv(self._descriptor, [view], begin)
            if not count:
                raise FileChangedError(self._path)
            view, begin = view[count:], begin + count
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        if self._fingerprint and self._fingerprint != file_fingerprint(self._descriptor):
            raise FileChangedError(self._path)


@lru_cache(maxsize=64)
def _remembered(path: Path, _fingerprint: str) -> Header:
    return _read_header(path)


def _header_size(path: Path) -> int:
    """Bytes that a file claims for its header. Raises ValueError when they are too many."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH), "little")
    if size > _MAX_HEADER:
        raise ValueError(f"its header claims more than {_MAX_HEADER} bytes")
    return size


def _unreadable(path: Path, error: Exception) -> WeightFileError:
    """The error for a file that is not a .safetensors file. It names what the file is instead, if that is known."""
    try:
        what = describe_not_weights(read_head(path))
    except OSError:
        what = None
    reason = f": it is {what}" if what else f" ({shorten(str(error))})"
    return WeightFileError(f"not a readable .safetensors file{reason}")


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
    """One entry of the header; its offsets count from the byte `data` of the file."""
    begin, end = entry["data_offsets"]
    return TensorInfo(tuple(entry["shape"]), entry["dtype"], data + begin, data + end)


def _portions(tensors: Mapping[str, TensorInfo]) -> Iterator[dict[str, TensorInfo]]:
    """The tensors in the order of the file, in groups that are adjacent, of one dtype, and of 4 MB or one tensor."""
    portion: dict[str, TensorInfo] = {}
    begin = end = 0
    dtype = ""
    for name, info in sorted(tensors.items(), key=lambda item: item[1].begin):
        if info.begin != end or info.dtype != dtype or info.end - begin > _PORTION:
            if portion:
                yield portion
            portion, begin, dtype = {}, info.begin, info.dtype
        portion[name], end = info, info.end
    if portion:
        yield portion


def _is_finite(numbers: torch.Tensor) -> bool:
    """Whether all numbers are finite in float32. NaN makes both extremes NaN, so one pass is enough."""
    return not numbers.numel() or all(abs(extreme.item()) <= _MAX_FLOAT32 for extreme in numbers.aminmax())
