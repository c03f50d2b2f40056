"""The memory of this process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


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
