"""Pins: the files of the store that jobs in flight protect from eviction."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

_Inode = tuple[int, int]  # device, number


class _BlobLock:
    """A shared lock on a file, through a descriptor that closes when the last pin is gone."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)


class BlobLocks:
    """The locks of one process: at most one descriptor for each file, however many jobs have pinned it."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[_Inode, _BlobLock] = weakref.WeakValueDictionary()

    def lock(self, path: Path) -> tuple[_Inode, _BlobLock]:
        """The lock of a file, and its key. Raises OSError. Only one thread at a time may call this."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stat = os.fstat(descriptor)
        inode = (stat.st_dev, stat.st_ino)
        lock = self._locks.get(inode)
        if lock is not None:
            os.close(descriptor)
            return inode, lock
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        lock = self._locks[inode] = _BlobLock(descriptor)
        return inode, lock


class Pins:
    """The blobs that one job protects from eviction until `release`.

    A pin is a shared lock on the blob: every process that uses the folder sees it, and it ends with its process.
    """

    def __init__(self, locks: BlobLocks) -> None:
        self._locks = locks
        self._held: dict[_Inode, _BlobLock] = {}

    def add(self, path: Path) -> None:
        """Raises OSError. The caller holds the lock under which blobs are evicted."""
        inode, lock = self._locks.lock(path)
        self._held[inode] = lock

    def release(self) -> None:
        self._held.clear()
