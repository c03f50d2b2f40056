"""`python -m runtime.supervisor.exit_with_parent PARENT PROGRAM ARGUMENT...`: runs PROGRAM, which ends with its parent.

The kernel kills this process when its parent, the process PARENT, ends. A separate program requests this, because a
parent with threads must not run Python code between fork and exec. tritonserver would take up to 30 s to end by itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # the parent ended before the request
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])
