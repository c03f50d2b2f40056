"""Weights that torch.save wrote (.pt, .bin, .ckpt), turned into .safetensors without torch and without unpickling."""

from __future__ import annotations

import io
import json
import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.files.pickle_machine import Tensor, load_pickle
from runtime.files.safetensors_file import WeightFileError

_MAX_PICKLE = 4 << 20  # bytes of names and shapes; thousands of tensors need less than one
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


def is_pickled(path: Path) -> bool:
    """Whether a file begins like one of torch.save (a zip archive, or a bare pickle)."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[8:] != b"{")


def to_safetensors(path: Path) -> Iterator[bytes]:
    """The tensors of a file of torch.save as a .safetensors file, in chunks.

    Raises WeightFileError before the first chunk: damaged, of another format, or with more than tensors in it.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            archive = _Archive(path, mapped)
            tensors = _tensors(load_pickle(archive.pickle()))
            claimed = sum(tensor.nbytes for tensor in tensors.values())
            if claimed > 2 * len(mapped):  # a tensor may be there twice
                raise WeightFileError(f"its tensors claim {claimed} bytes; the file has {len(mapped)}")
            places = {name: archive.place(tensor) for name, tensor in tensors.items()}
            yield _header(tensors)
            for name, tensor in tensors.items():
                yield from _data(mapped, tensor, places[name])
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, WeightFileError):
            raise
        raise WeightFileError(f"not a readable file of torch.save ({error})") from error


class _Careful(io.FileIO):
    """A file of which a zip archive's list of entries is read, in one piece: it must not fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_PICKLE:
            raise WeightFileError("its list of entries is too large for weights")
        return super().read(size) or b""


class _Archive:
    """The zip archive that torch.save writes: `<root>/data.pkl` and the storages `<root>/data/<key>`, uncompressed."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        if mapped[:4] != b"PK\x03\x04":
            raise WeightFileError("a pickle in the format of torch before 1.6, or none of torch: save it again")
        self._mapped = mapped
        with _Careful(path) as content, zipfile.ZipFile(content) as file:
            self._entries = {info.filename: info for info in file.infolist()}
        roots = [name.removesuffix("/data.pkl") for name in self._entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise WeightFileError("a zip archive that torch.save did not write")
        self._root = roots[0]
        if f"{self._root}/byteorder" in self._entries and self._read("byteorder") != b"little":
            raise WeightFileError("it was written on a big-endian machine")

    def pickle(self) -> bytes:
        return self._read("data.pkl")

    def place(self, tensor: Tensor) -> int:
        """Where a tensor's first item lies in the file."""
        start, size = self._span(f"data/{tensor.storage.key}")
        first = tensor.offset * tensor.storage.size
        if first + tensor.span > size:
            raise WeightFileError(f"a tensor of {list(tensor.shape)} leads out of its storage of {size} bytes")
        return start + first

    def _read(self, name: str) -> bytes:
        start, size = self._span(name)
        if size > _MAX_PICKLE:
            raise WeightFileError(f"its {name} is too large for names and shapes")
        return self._mapped[start : start + size]

    def _span(self, name: str) -> tuple[int, int]:
        """Where an entry's content begins, and its bytes."""
        info = self._entries.get(f"{self._root}/{name}")
        if info is None:
            raise WeightFileError(f"it lacks its entry {name[:99]}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise WeightFileError("its entries are compressed or encrypted, which torch.save's are not")
        begin = info.header_offset
        if not 0 <= begin <= len(self._mapped) - _LOCAL_HEADER.size:
            raise WeightFileError("it is truncated")
        signature, name_size, extra_size = _LOCAL_HEADER.unpack_from(self._mapped, begin)
        start = begin + _LOCAL_HEADER.size + name_size + extra_size
        if signature != b"PK\x03\x04" or start + info.file_size > len(self._mapped):
            raise WeightFileError("it is truncated")
        return start, info.file_size


def _header(tensors: dict[str, Tensor]) -> bytes:
    """The beginning of a .safetensors file: the length of its JSON, and that, padded to 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": tensor.storage.dtype, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _data(mapped: mmap.mmap, tensor: Tensor, place: int) -> Iterator[bytes]:
    """A tensor's items in their order."""
    if _is_contiguous(tensor):
        for begin in range(place, place + tensor.nbytes, _CHUNK):
            yield mapped[begin : min(begin + _CHUNK, place + tensor.nbytes)]
    elif tensor.nbytes:
        size = tensor.storage.size
        items: npt.NDArray[Any] = np.ndarray(
            tensor.shape, f"u{size}", mapped, place, tuple(stride * size for stride in tensor.strides)
        )
        count = _CHUNK // size
        pieces: Any = np.nditer(items, ["external_loop", "buffered"], [["readonly"]], order="C", buffersize=count)
        yield from (piece.tobytes() for piece in pieces)


def _is_contiguous(tensor: Tensor) -> bool:
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _tensors(content: object) -> dict[str, Tensor]:
    """The tensors by name, those of one dtype's width together, the widest first: so all are aligned."""
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise WeightFileError("it holds no tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str) or name == "__metadata__" or not isinstance(tensor, Tensor):
            raise WeightFileError(f"its entry {str(name)[:99]} is no named tensor")
    return dict(sorted(content.items(), key=lambda item: -item[1].storage.size))
