"""Reads `.safetensors` files: the header without torch, and single tensors on demand.

Tensors are read, not mapped: a mapped file that another process truncates ends this process, and mapping page by page
is slower than the copy.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorikeet.protocol.shorten import shorten
from runtime.files.header_cache import HeaderCache
from runtime.files.not_weights import describe_not_weights, read_head
from runtime.files.safetensors_header import Header, TensorInfo, read_header_text
from runtime.files.stored_file import FileChangedError, file_fingerprint
from runtime.float32 import is_finite_in_float32

if TYPE_CHECKING:
    import torch

FLOATS = ("F64", "F32", "F16", "BF16")
_PORTION = 4 << 20  # bytes
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
_headers = HeaderCache()


class WeightFileError(ValueError):
    """The file is not a usable `.safetensors` file; the message is fit for the client."""


class NotFiniteError(ValueError):
    """A number of a tensor is not finite in float32; the message is fit for the client."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{shorten(name)} has a value that is not finite in float32")


def read_header(path: Path) -> Header:
    """The header of a file, checked against the size of the file.

    Raises WeightFileError: damaged, truncated, or of another format.
    """
    try:
        return _headers.parse(read_header_text(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


class SafetensorsFile:
    """An open file. Any thread may read from it. It is closed when it is no longer referenced.

    Small tensors that are adjacent in the file are read and checked together, because a call costs more than such a
    tensor. Those that were not asked for yet are kept until then: ask in the order of the file, each tensor once.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: str = "",
        names: Collection[str] | None = None,
        *,
        finite: bool = False,
        tensors: Mapping[str, TensorInfo] | None = None,
    ) -> None:
        """`names`: the tensors that `read` will be called for (default: all). `finite`: `read` refuses NaN and
        infinity. `fingerprint`: see `StoredFile`. `tensors`: those of the header, if it was read for this fingerprint.

        Raises WeightFileError, and FileChangedError when the file or one of `names` is gone or the fingerprint differs.
        """
        self._path, self._fingerprint, self._finite = path, fingerprint, finite
        self._tensors = read_header(path).tensors if tensors is None else tensors
        self._asked = self._tensors.keys() if names is None else names
        if not self._tensors.keys() >= set(self._asked):
            raise FileChangedError(path)
        self._kept: dict[str, torch.Tensor] = {}
        self._reading = threading.Lock()
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FileChangedError(path) from error
        weakref.finalize(self, os.close, self._descriptor)
        self._check_unchanged()

    @cached_property
    def _portions(self) -> dict[str, dict[str, TensorInfo]]:
        """Tensor name -> the tensors that are read together with it. Most files are opened and never read."""
        portions = _portions({name: self._tensors[name] for name in self._asked})
        return {name: portion for portion in portions for name in portion}

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
        info = self._tensors[name]
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


def _unreadable(path: Path, error: Exception) -> WeightFileError:
    """The error for a file that is not a .safetensors file. It names what the file is instead, if that is known."""
    try:
        what = describe_not_weights(read_head(path))
    except OSError:
        what = None
    reason = f": it is {what}" if what else f" ({shorten(str(error))})"
    return WeightFileError(f"not a readable .safetensors file{reason}")


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
    return not numbers.numel() or all(is_finite_in_float32(extreme.item()) for extreme in numbers.aminmax())
