"""`python -m runtime.supervisor.exit_with_parent PROGRAM ARGUMENT...`: runs PROGRAM, which ends when its parent ends.

The kernel sends SIGTERM to this process when its parent ends. A separate program requests the signal, because a parent
with threads must not run Python code between fork and exec.
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
