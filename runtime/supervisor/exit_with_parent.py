"""`python -m runtime.supervisor.exit_with_parent SIGNAL PARENT PROGRAM ARGUMENT...`: PROGRAM ends with its parent.

The kernel sends SIGNAL (a name such as SIGKILL) to this process when its parent, the process PARENT, ends. A separate
program requests the signal, because a parent with threads must not run Python code between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    name, parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.Signals[name])
    if os.getppid() != int(parent):  # the parent ended before the request
        sys.exit(1)
    os.execv(command[0], command)
