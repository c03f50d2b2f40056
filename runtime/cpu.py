"""What this machine's processor can do. Importing this takes no torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# The environment of processes that run networks, where the user sets nothing else.
# OMP_WAIT_POLICY: four stages share the cores. By default OpenMP threads spin while they wait, and so take cores from
# the other stages: on a busy machine a denoising step then takes more than ten times as long. Threads that sleep are
# slightly slower on an idle machine.
# THP_MEM_ALLOC_ENABLE: torch takes the memory of large tensors from the system and gives it back, 2 GB in one call of
# SD 1.5's UNet at 256 px. In pages of 2 MB instead of 4 KB, such a call takes about a tenth less time (2 cores, AVX2).
PROCESS_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}


@cache
def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16. Where it does not, torch emulates it: a matrix product takes 40 times
    as long as in float32 (measured)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})
