"""What a process keeps of the memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

from runtime.settings import ROOT

LITTLE = 20 << 20
# Threads free large blocks while each keeps a small one that was allocated after them, as a cache does.
_PROGRAM = """
import ctypes, sys, threading
from runtime.memory import keep_little, resident_bytes

if sys.argv[1] == "keep_little":
    keep_little()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
ready = threading.Barrier(8)

def work():
    for size in (2 << 20, 1 << 20):  # the first raises the size from which glibc takes a mapping of its own
        blocks = [libc.malloc(size) for _ in range(20)]
        for block in blocks:
            ctypes.memset(block, 1, size)
        kept.append(libc.malloc(64))
        ready.wait()  # all threads use the heap at the same time
        for block in blocks:
            libc.free(block)

kept, before = [], resident_bytes()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident_bytes() - before)
"""


def kept(how: str) -> int:
    """Bytes that the program has more at its end than at its start."""
    command = [sys.executable, "-c", _PROGRAM, how]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_a_process_that_keeps_little_returns_large_blocks_at_once() -> None:
    assert kept("keep_little") < LITTLE < kept("as usual")
