"""Copies the server's log to standard error, without Triton's harmless warnings about a missing GPU."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import IO

# Triton writes these lines at every start on a machine without a GPU, even when no model needs one.
_NO_GPU = re.compile(
    rb"CUDA driver version is insufficient|CudaDriverHelper has not been initialized"
    rb"|no pinned memory pool, falling back|Failed to initialize NVML|DCGM unable to start"
)


def copy_filtered(stream: IO[bytes]) -> None:
    """Start a thread that copies the stream's lines to standard error until the stream ends."""
    threading.Thread(target=_copy, args=(stream, not Path("/dev/nvidiactl").exists()), daemon=True).start()


def _copy(stream: IO[bytes], drop: bool) -> None:
    for line in stream:
        if not (drop and _NO_GPU.search(line)):
            sys.stderr.buffer.write(line)
            sys.stderr.flush()
