"""A process's memory, from /proc/<pid>."""

from __future__ import annotations

from pathlib import Path

_KIB = 1024


def private_bytes(pid: int) -> int:
    """Bytes that the kernel frees when this process ends: its private pages, dirty and clean."""
    found = _rollup(pid)
    return found["Private_Dirty"] + found["Private_Clean"]


def proportional_bytes(pid: int) -> int:
    """Bytes of the process's pages; a shared page is divided by the number of its processes. A sum over processes
    counts each page once."""
    return _rollup(pid)["Pss"]


def anonymous_bytes(pid: int) -> int:
    """Bytes of the process's own pages that no file backs: heap and stacks. It is quick to read."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return int(line.split()[1]) * _KIB


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) * _KIB for name, _, rest in (line.partition(":") for line in lines)}
