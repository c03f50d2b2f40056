"""The process's only OpenVINO Core."""

from __future__ import annotations

from functools import cache

import openvino as ov


@cache
def core() -> ov.Core:
    """The same Core at each call: two in one process can crash it.

    The CPU plugin of a Core gives the thread that loads it a stack for signal handlers. It frees that stack when the
    Core and its models are gone, and puts back the one that it found. When an older Core goes first, the stack that is
    put back is freed memory, and the next signal handler ends the process (seen with OpenVINO 2026.4.1).
    """
    return ov.Core()
