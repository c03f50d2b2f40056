"""Reads weights that torch.save wrote (.pt, .bin, .ckpt) without torch and without unpickling them."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lorikeet.protocol.shorten import shorten
from runtime.files.bounded_reads import MOST_BYTES, BoundedReads
from runtime.files.pickle_machine import load_pickle
from runtime.files.pickle_tree import TensorRef, Tree, named_tensors, to_tree
from runtime.files.safetensors_file import WeightFileError

_MAX_PICKLE = MOST_BYTES  # of names and shapes
_MAX_STRIDED = 256 << 20  # bytes that are read for a tensor that is not contiguous
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_SIGNATURE = b"PK\x03\x04"
# zipfile raises NotImplementedError for a compression that it does not know.
_ERRORS = (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError)


def is_pickled(path: Path) -> bool:
    """Whether a file begins like one of torch.save (a zip archive, or a bare pickle)."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[:4] == _SIGNATURE or (start[:1] == b"\x80" and start[8:] != b"{")


def read_torch_pickle(path: Path) -> Tree:
    """The tree that a file of torch.save holds; the data of its tensors is not read.

    Raises WeightFileError: damaged, of another format, or with code in it.
    """
    try:
        with path.open("rb") as file:
            return _Archive(file).tree()
    except _ERRORS as error:
        raise _refusal(error) from error


def to_safetensors(path: Path) -> Iterator[bytes]:
    """The tensors of a file of torch.save as a .safetensors file, in chunks; see `named_tensors`.

    Raises WeightFileError before the first chunk, and at a later one when the file is truncated meanwhile.
    """
    try:
        with path.open("rb") as file:
            archive = _Archive(file)
            tensors = _by_itemsize(named_tensors(archive.tree()))
            claimed = sum(tensor.nbytes for tensor in tensors.values())
            if claimed > 2 * archive.size:  # two names may share a tensor
                raise WeightFileError(f"its tensors claim {claimed} bytes; the file has {archive.size}")
            places = {name: archive.place(tensor) for name, tensor in tensors.items()}
            yield _header(tensors)
            for name, tensor in tensors.items():
                yield from archive.items(tensor, places[name])
    except _ERRORS as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> WeightFileError:
    if isinstance(error, WeightFileError):
        return error
    return WeightFileError(f"not a readable file of torch.save ({shorten(str(error))})")


class _Archive:
    """The zip archive that torch.save writes: `<root>/data.pkl` and the storages `<root>/data/<key>`, uncompressed.

    It is read, not mapped: a mapped file that another process truncates ends this process.
    """

    def __init__(self, file: BufferedReader) -> None:
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        if os.pread(self._descriptor, len(_SIGNATURE), 0) != _SIGNATURE:
            raise WeightFileError("expected the zip format of torch 1.6 or later: save the file again")
        with BoundedReads(self._descriptor, closefd=False) as content, zipfile.ZipFile(content) as archive:
            self._entries = {info.filename: info for info in archive.infolist()}
        roots = [name.removesuffix("/data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightFileError("a zip archive that torch.save did not write: expected one entry data.pkl")
        self._root = roots[0]
        if f"{self._root}/byteorder" in self._entries and self._read_entry("byteorder") != b"little":
            raise WeightFileError("its numbers are big-endian; expected little-endian")

    def tree(self) -> Tree:
        return to_tree(load_pickle(self._read_entry("data.pkl")))

    def place(self, tensor: TensorRef) -> int:
        """Where the first item of a tensor is in the file."""
        start, size = self._entry(f"data/{tensor.storage.key}")
        first = tensor.offset * tensor.storage.itemsize
        if first + tensor.span > size:
            raise WeightFileError(f"a tensor of shape {list(tensor.shape)} exceeds its storage of {size} bytes")
        if not tensor.is_contiguous and tensor.span > _MAX_STRIDED:
            raise WeightFileError(
                f"a tensor of shape {list(tensor.shape)} is not contiguous and spans more than {_MAX_STRIDED} bytes: "
                "save it contiguous"
            )
        return start + first

    def items(self, tensor: TensorRef, place: int) -> Iterator[bytes]:
        """The items of a tensor in row-major order, in chunks."""
        if tensor.is_contiguous:
            for begin in range(place, place + tensor.nbytes, _CHUNK):
                yield self._read(begin, min(_CHUNK, place + tensor.nbytes - begin))
        elif tensor.nbytes:
            size = tensor.storage.itemsize
            strides = tuple(stride * size for stride in tensor.strides)
            span = self._read(place, tensor.span)
            items: npt.NDArray[Any] = np.ndarray(tensor.shape, f"u{size}", span, 0, strides)
            count = _CHUNK // size
            pieces: Any = np.nditer(items, ["external_loop", "buffered"], [["readonly"]], order="C", buffersize=count)
            yield from (piece.tobytes() for piece in pieces)

    def _read_entry(self, name: str) -> bytes:
        start, size = self._entry(name)
        if size > _MAX_PICKLE:
            raise WeightFileError(f"its {name} has more than {_MAX_PICKLE} bytes, too many for names and shapes")
        return self._read(start, size)

    def _entry(self, name: str) -> tuple[int, int]:
        """Where the content of an entry begins, and its bytes."""
        info = self._entries.get(f"{self._root}/{name}")
        if info is None:
            raise WeightFileError(f"it lacks its entry {shorten(name, 100)}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise WeightFileError("its entries are compressed or encrypted; those of torch.save are not")
        if info.header_offset < 0:
            raise _truncated()
        local = self._read(info.header_offset, _LOCAL_HEADER.size)
        signature, name_size, extra_size = _LOCAL_HEADER.unpack(local)
        start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
        if signature != _SIGNATURE or start + info.file_size > self.size:
            raise _truncated()
        return start, info.file_size

    def _read(self, begin: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, begin)
        if len(data) < size:
            raise _truncated()
        return data


def _truncated() -> WeightFileError:
    return WeightFileError("it is truncated")


def _header(tensors: dict[str, TensorRef]) -> bytes:
    """The beginning of a .safetensors file: the length of the JSON, and the JSON, padded to 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": tensor.storage.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _by_itemsize(tensors: dict[str, TensorRef]) -> dict[str, TensorRef]:
    """The tensors with the largest items first: so each one is aligned in the file."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].storage.itemsize))
