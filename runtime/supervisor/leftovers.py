"""What a supervisor owns: a private folder, and regions of shared memory. Removes what killed supervisors have left.

Without this, shared memory stays until the next boot. A supervisor locks what it owns; the system releases the locks
when it ends. The process id alone does not tell: containers that share /dev/shm have process ids of their own.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime import shared_memory

PREFIX = "lorikeet-"  # followed by the supervisor's process id, "-", and eight random characters
_OWNER = ".owner"  # ends the name of a supervisor's lock file in /dev/shm
_OWNED = re.compile(rf"{PREFIX}(\d+)-\w{{8}}({re.escape(_OWNER)})?")


@contextmanager
def own_folder() -> Iterator[Path]:
    """This supervisor's private folder. Its name is in the names of the supervisor's regions; see `region_prefix`.

    No other supervisor's `sweep` removes the folder or the regions before this process ends.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        owner = shared_memory.FOLDER / f"{folder.name}{_OWNER}"
        owner.touch(mode=0o600)
        locks = [_lock(path) for path in (folder, owner)]
        if None not in locks and folder.exists() and owner.exists():
            break  # else another supervisor's sweep came between
    try:
        yield folder
    finally:
        owner.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        for lock in locks:
            if lock is not None:
                os.close(lock)


def region_prefix(folder: Path, server: str) -> str:
    """The beginning of the names of a server's regions. No client can register such a name; see `RESERVED_PREFIX`.

    `folder`: the supervisor's own. `server`: the server's name among those that the supervisor starts.
    """
    return f"{shared_memory.RESERVED_PREFIX}{folder.name}-{server}-"


def regions(prefix: str) -> list[Path]:
    """The regions of shared memory whose names begin with `prefix`."""
    return [path for path in shared_memory.FOLDER.iterdir() if path.name.startswith(prefix)]


def sweep() -> None:
    """Remove this user's folders and regions of supervisors that have ended."""
    for owner in _of_ended_supervisors(shared_memory.FOLDER):
        for path in [*regions(f"{shared_memory.RESERVED_PREFIX}{owner.name.removesuffix(_OWNER)}-"), owner]:
            with suppress(OSError):
                path.unlink()
    for folder in _of_ended_supervisors(Path(tempfile.gettempdir())):
        shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether the process is running. A zombie is not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _of_ended_supervisors(folder: Path) -> Iterator[Path]:
    """This user's entries whose supervisor has ended. Each is locked while the caller looks at it."""
    for entry in folder.glob(f"{PREFIX}*"):
        found = _OWNED.fullmatch(entry.name)
        # A restarted container gives the new supervisor the process id of the old one.
        if not found or (int(found[1]) != os.getpid() and is_alive(int(found[1]))):
            continue
        if (lock := _lock(entry)) is not None:
            try:
                yield entry
            finally:
                os.close(lock)


def _lock(path: Path) -> int | None:
    """Lock a file or folder of this user; None when another process has locked it or removes it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid == os.getuid():
            return lock
    os.close(lock)
    return None
