"""Removes the files of a store that no job and no writer has locked."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path


def remove_unlocked(path: Path) -> bool:
    """Remove a regular file unless it is locked. Returns whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except OSError:  # it is locked, or may not be removed
        return False
    return True


def remove_junk(folder: Path, known: re.Pattern[str]) -> None:
    """Remove what is no file of the store, and the incomplete files of killed processes: their locks are gone.

    `known`: the names of the store's complete files. Raises OSError when the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        junk = [
            entry for entry in entries if not (known.fullmatch(entry.name) and entry.is_file(follow_symlinks=False))
        ]
    for entry in junk:
        with suppress(OSError):
            _remove_entry(entry)


def _remove_entry(entry: os.DirEntry[str]) -> None:
    """Remove a file unless it is locked, a folder, or anything else. Raises OSError."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    elif entry.is_file(follow_symlinks=False):
        remove_unlocked(Path(entry.path))
    else:  # a link, or a named pipe: opening it would wait for its writer
        Path(entry.path).unlink()
