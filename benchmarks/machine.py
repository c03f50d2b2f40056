"""What a result was measured on: the machine, the library versions, the commit, the date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from runtime.cpu import has_bfloat16
from runtime.settings import ROOT

_LIBRARIES = ("torch", "diffusers", "transformers", "peft", "tritonclient")
_DIRTY = "+"
# The benchmarks write these; they change nothing that is measured.
_WRITTEN_FILES = (":(exclude)benchmarks/results", ":(exclude)benchmarks/tensorrt/results", ":(exclude)README.md")


class DirtyTree(ValueError):
    """Tracked files differ from the commit that the result would name."""


def describe_machine(root: Path = ROOT) -> dict[str, Any]:
    """A JSON object. `load`: the load average before the case; `commit` ends with "+" when tracked files in the
    repository `root` differ from it, except for the files that the benchmarks write."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES},
        "commit": _commit(root),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def require_commit(machine: dict[str, Any]) -> None:
    """Raises DirtyTree when the description's commit does not name the exact code."""
    if machine["commit"].endswith(_DIRTY):
        raise DirtyTree(
            f"tracked files differ from commit {machine['commit'].removesuffix(_DIRTY)}, which a result would name; "
            "commit or stash the changes (`git status` lists them), or use --quick"
        )


def memory_bytes() -> int:
    """The machine's whole memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            return f"{name} {'with' if has_bfloat16() else 'without'} native bfloat16"
    return platform.machine()


def _commit(root: Path) -> str:
    """The commit's first 12 digits, with "+" for a dirty tree; "unknown" outside a git repository."""
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN_FILES)
    return f"{commit}{_DIRTY if changes else ''}" if commit else "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.strip()
