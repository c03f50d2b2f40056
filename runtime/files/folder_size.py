"""The size of the files in a folder, as a metric."""

from __future__ import annotations

import os
import time
from pathlib import Path

# A folder's time changes only with the file system's clock, which ticks every few milliseconds. A folder that changed
# so lately may change again at the same time.
_TICK_NS = 1_000_000_000


class FolderSize:
    """Reads the files' sizes only after one was added or removed: a store has thousands of files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mtime_ns, self._nbytes = -1, 0

    def nbytes(self) -> int:
        """Bytes of the files in the folder, without hidden ones; 0 when the folder does not exist."""
        try:
            mtime_ns = self._folder.stat().st_mtime_ns
            if mtime_ns != self._mtime_ns:
                self._nbytes = sum(_size(entry) for entry in os.scandir(self._folder) if not entry.name.startswith("."))
                self._mtime_ns = mtime_ns if time.time_ns() - mtime_ns > _TICK_NS else -1
        except OSError:
            return 0
        return self._nbytes


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # it was removed meanwhile
        return 0
