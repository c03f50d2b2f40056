"""Where a checkpoint's files were found: a folder, or one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.files.store import StoredFile


@dataclass(frozen=True)
class Folder:
    """A checkpoint's folder, and the folder that none of its files may lead out of."""

    path: Path
    inside: Path


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint in one file, and the folder that nothing beside it may lead out of; None: nothing lies beside it."""

    stored: StoredFile
    inside: Path | None = None
