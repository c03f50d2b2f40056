"""`python -m runtime.supervisor.exit_with_parent PROGRAM ARGUMENT...`: becomes the program, tied to its parent's life.

A process of its own does this, because code between fork and exec may not run in a parent that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.argv[1], sys.argv[1:])
