"""Passes on what the server says, without what only sounds bad."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import IO

# Triton looks for a GPU before it asks whether one is wanted; without one these four are always said.
_NO_GPU = re.compile(
    rb"CUDA driver version is insufficient|CudaDriverHelper has not been initialized"
    rb"|no pinned memory pool, falling back|Failed to initialize NVML|DCGM unable to start"
)


def copy_filtered(stream: IO[bytes]) -> None:
    """Copy the stream's lines to standard error from a thread, until it ends."""
    threading.Thread(target=_copy, args=(stream, not Path("/dev/nvidiactl").exists()), daemon=True).start()


def _copy(stream: IO[bytes], drop: bool) -> None:
    for line in stream:
        if not (drop and _NO_GPU.search(line)):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
