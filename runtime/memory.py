"""The memory of this process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt(3)
_LARGE_BLOCK = 256 << 10


def resident_bytes() -> int:
    """What the process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Return freed memory to the system. Takes some milliseconds.

    glibc keeps freed blocks of up to 32 MB for later, in an arena for each thread. A process where weights of a few
    megabytes come and go would hold hundreds of megabytes more than it uses.
    """
    ctypes.CDLL(None).malloc_trim(0)


def keep_little() -> None:
    """Make the process return freed blocks of `_LARGE_BLOCK` bytes and more at once, and keep all others in one arena.

    For a process of many threads whose large blocks live for moments. By default glibc keeps freed blocks of up to
    32 MB, in up to eight arenas for each core.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_ARENA_MAX, 1)
    libc.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
