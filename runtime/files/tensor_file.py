"""Tensors of a `.safetensors` file, read when they are asked for.

They are read, not mapped: a file that is cut short while it is mapped can end the process, and pages that are mapped
one by one cost more than the copy.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import torch

from runtime.files.store import FileChangedError
from runtime.files.tensors import read_header

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


class TensorFile:
    """An open file. Any thread may read from it; it is closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        """Raises WeightFileError, and FileChangedError when it is gone since."""
        self._path = path
        self._tensors = read_header(path).tensors
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FileChangedError(path) from error
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, name: str) -> torch.Tensor:
        """A tensor whose dtype is float or integer. Raises FileChangedError when the file has lost some of it."""
        info = self._tensors[name]
        data = torch.empty(info.end - info.begin, dtype=torch.uint8)
        if os.preadv(self._descriptor, [data.numpy().data], info.begin) < len(data):
            raise FileChangedError(self._path)
        return data.view(_DTYPES[info.dtype]).view(info.shape)
