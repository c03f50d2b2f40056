"""Tensors of a `.safetensors` file, read when they are asked for.

They are read, not mapped: a file that is cut short while it is mapped can end the process, and pages that are mapped
one by one cost more than the copy.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch

from runtime.files.safetensors_file import FLOATS, TensorInfo, read_header
from runtime.files.store import FileChangedError

_PORTION = 4 << 20  # bytes
_SHOWN = 300  # characters of a name, which may be megabytes
_MAX = torch.finfo(torch.float32).max
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
}


class NotFiniteError(ValueError):
    """A number of the tensor is not finite in float32; the message is fit for the client."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:_SHOWN]} is not finite in float32")


class TensorFile:
    """An open file. Any thread may read from it; it is closed when nobody holds it any more.

    Small tensors that lie side by side are read and checked together: each call costs more than such a tensor does.
    Those that nobody has asked for yet are kept meanwhile, so it is best to ask in the file's order.
    """

    def __init__(self, path: Path, names: Collection[str]) -> None:
        """`names`: the tensors that will be read, each once (again is dear); their dtypes are float or integer.

        Raises WeightFileError, and FileChangedError when the file is gone since, or one of the tensors.
        """
        self._path = path
        tensors = read_header(path).tensors
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

    def read(self, name: str) -> torch.Tensor:
        """One of the tensors. Raises NotFiniteError of it or one near it, and FileChangedError when the file has lost
        some of it."""
        with self._reading:
            if name not in self._kept:
                self._kept |= self._read(self._portions[name])
            return self._kept.pop(name)

    def _read(self, portion: Mapping[str, TensorInfo]) -> dict[str, torch.Tensor]:
        infos = list(portion.values())
        first, last = infos[0], infos[-1]
        data = torch.empty(last.end - first.begin, dtype=torch.uint8)
        if os.preadv(self._descriptor, [data.numpy().data], first.begin) < len(data):
            raise FileChangedError(self._path)
        numbers = data.view(_DTYPES[first.dtype])
        parts = torch.split(numbers, [(info.end - info.begin) // numbers.itemsize for info in portion.values()])
        read = {name: part.view(info.shape) for (name, info), part in zip(portion.items(), parts, strict=True)}
        if first.dtype in FLOATS and not _is_finite(numbers):
            raise NotFiniteError(next(name for name, part in read.items() if not _is_finite(part)))
        return read


def _portions(tensors: Mapping[str, TensorInfo]) -> Iterator[dict[str, TensorInfo]]:
    """The tensors in the file's order, parted where one does not follow on the last, or has another dtype, or is more
    than a portion holds."""
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
    """Whether all are, in float32. Their extremes tell it in one pass: they are not when one number is not."""
    return not numbers.numel() or all(abs(extreme.item()) <= _MAX for extreme in numbers.aminmax())
