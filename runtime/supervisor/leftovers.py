"""Removes what supervisors that were killed have left: shared memory, and folders with job tables and plans.

Without this, shared memory stays until the next boot.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PREFIX = "lorikeet-"  # followed by the supervisor's process id and "-"
SHARED_MEMORY = Path("/dev/shm")


def sweep() -> None:
    for region in _of_dead_supervisors(SHARED_MEMORY):
        with suppress(OSError):
            region.unlink()
    for folder in _of_dead_supervisors(Path(tempfile.gettempdir())):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether the process is running. A zombie is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _of_dead_supervisors(folder: Path) -> Iterator[Path]:
    """This user's entries whose name has the process id of a supervisor that has ended."""
    for entry in folder.glob(f"{PREFIX}*-*"):
        owner = entry.name.removeprefix(PREFIX).split("-")[0]
        with suppress(OSError):
            if owner.isdigit() and not is_alive(int(owner)) and entry.lstat().st_uid == os.getuid():
                yield entry
