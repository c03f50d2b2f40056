"""The memory of one process, as the kernel counts it: pages that it shares with others are included."""

from __future__ import annotations

from pathlib import Path


def megabytes(pid: int) -> float:
    """The memory that a process has."""
    return _read(pid, "VmRSS")


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had."""
    return _read(pid, "VmHWM")


def _read(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
