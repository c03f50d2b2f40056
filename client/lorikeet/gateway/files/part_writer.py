"""Writes one object of the folder for files, and computes its digest."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from fsspec import AbstractFileSystem

_S3_PART_BYTES = 8 << 20  # what S3 clients keep in memory for each open file; 50 MiB without it


class PartWriter:
    """An object that exists completely once `close` has returned. All methods block and raise OSError."""

    def __init__(self, files: AbstractFileSystem, path: str) -> None:
        self._files, self._path = files, path
        self._out = files.open(path, "wb", block_size=_S3_PART_BYTES)
        self._digest = hashlib.sha256()

    def write(self, block: bytes) -> None:
        self._out.write(block)
        self._digest.update(block)

    def close(self, block: bytes) -> str:
        """Write the last block. Returns the hex SHA-256 of the object."""
        self.write(block)
        self._out.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """End after an error. What was written is an object then, which the caller removes."""
        # Not left to the garbage collector: S3 clients upload the rest when their file is collected, after the removal.
        with suppress(Exception):
            self._out.close()


def remove_object(files: AbstractFileSystem, path: str) -> None:
    """Remove an object; nothing happens when there is none."""
    with suppress(FileNotFoundError):
        files.rm_file(path)
