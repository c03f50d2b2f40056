"""The process's own memory, as malloc keeps it."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return to the system what was freed. Takes some milliseconds.

    glibc keeps freed blocks of up to 32 MB for later, in an arena for each thread: where weights of a few megabytes
    come and go, a process then holds hundreds of megabytes more than it uses.
    """
    ctypes.CDLL(None).malloc_trim(0)
