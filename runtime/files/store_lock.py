"""The lock on a store's folder."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class StoreLock:
    """Excludes the other threads of this process, and the other processes that use the folder.

    `folders`: those inside it that the store needs. What another program deletes is made anew at the next use.
    """

    def __init__(self, folder: Path, folders: Sequence[Path]) -> None:
        self._path, self._folders = folder / "lock", folders
        self._writing = threading.Lock()
        self._file: BinaryIO | None = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock while the block runs. Raises OSError."""
        with self._writing:
            file = self._locked()
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _locked(self) -> BinaryIO:
        """The lock file, locked. The folders that are missing are made."""
        while True:
            for folder in self._folders:
                folder.mkdir(parents=True, exist_ok=True)
            if self._file is None:
                self._file = self._path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if _is_same(self._file, self._path):
                return self._file
            self._file.close()  # of a folder that was deleted
            self._file = None


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
