"""A process's memory, from the kernel's own account of it."""

from __future__ import annotations

from pathlib import Path

_KIB = 1024


def private_bytes(pid: int) -> int:
    """Bytes that would be free without this process: its private pages, dirty and clean."""
    found = _rollup(pid)
    return found["Private_Dirty"] + found["Private_Clean"]


def proportional_bytes(pid: int) -> int:
    """Its pages, each shared one divided by the number of processes that share it: sums of it count nothing twice."""
    return _rollup(pid)["Pss"]


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * _KIB for name, _, rest in (line.partition(":") for line in lines)}
