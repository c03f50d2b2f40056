"""Finds the ONNX files of an InsightFace pack: in a folder, or in the zip archive as which packs are published."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from lorikeet.protocol.shorten import listed
from runtime.files.bounded_reads import BoundedReads
from runtime.files.safetensors_file import WeightFileError

MOST_FILES = 16  # the published packs have five
_MOST_BYTES = 1 << 30  # of a file; the largest published one has 260 MB
_CHUNK = 1 << 20
_SUFFIX = ".onnx"
_PLACES = (f"*{_SUFFIX}", f"*/*{_SUFFIX}", f"*/*/*{_SUFFIX}")  # InsightFace's own folders are models/<pack>
# zipfile raises NotImplementedError for a compression that it does not know.
_ERRORS = (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile)


def pack_names(names: Collection[str]) -> list[str]:
    """The names of a pack's files, sorted: those at the top, else those of the only folder that has some.

    Raises WeightFileError when there are none, too many, or several packs.
    """
    found = sorted(name for name in names if name.endswith(_SUFFIX))
    depth = min((name.count("/") for name in found), default=0)
    nearest = [name for name in found if name.count("/") == depth]
    folders = sorted({name.rpartition("/")[0] for name in nearest})
    if not nearest:
        raise WeightFileError(f"it has no {_SUFFIX} files: expected an InsightFace pack such as buffalo_l")
    if len(folders) > 1:
        raise WeightFileError(f"it has several packs: expected one, found {listed(folders)}")
    if len(nearest) > MOST_FILES:
        raise WeightFileError(f"it has {len(nearest)} {_SUFFIX} files: expected at most {MOST_FILES}")
    return nearest


def names_in_folder(folder: Path) -> list[str]:
    """The names of the ONNX files of a folder, and of the folders in it. Raises OSError."""
    found = (path for place in _PLACES for path in folder.glob(place))
    return [path.relative_to(folder).as_posix() for path in islice(found, 16 * MOST_FILES)]


def check_archive(path: Path) -> None:
    """Raises WeightFileError when a file is no zip archive of a pack."""
    _with_archive(path, lambda archive: pack_names(archive.namelist()))


def entries(path: Path) -> Iterator[Iterator[bytes]]:
    """The content of each file of an archive's pack, in chunks. Raises WeightFileError."""
    for name in _with_archive(path, lambda archive: pack_names(archive.namelist())):
        yield _chunks(path, name)


def _chunks(path: Path, name: str) -> Iterator[bytes]:
    size = 0
    try:
        with BoundedReads(path) as file, zipfile.ZipFile(file) as archive, archive.open(name) as entry:
            while chunk := entry.read(_CHUNK):
                size += len(chunk)  # the size in the archive's list can be wrong
                if size > _MOST_BYTES:
                    raise WeightFileError(f"its entry {listed([name])} has more than {_MOST_BYTES} bytes")
                yield chunk
    except _ERRORS as error:
        raise _refusal(error) from error


def _with_archive(path: Path, read: Callable[[zipfile.ZipFile], list[str]]) -> list[str]:
    try:
        with BoundedReads(path) as file, zipfile.ZipFile(file) as archive:
            return read(archive)
    except _ERRORS as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> WeightFileError:
    if isinstance(error, WeightFileError):
        return error
    return WeightFileError("it is no zip archive: expected the folder of an InsightFace pack, or a zip archive of it")
