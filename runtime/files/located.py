"""Where the files of a checkpoint are: in a folder, or in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.files.stored_file import StoredFile


@dataclass(frozen=True)
class Folder:
    """The folder of a checkpoint. Every file of it must resolve to a path within `inside`."""

    path: Path
    inside: Path


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint in one file. The files next to it must resolve to paths within `inside`; None: they are not read.

    `name`: that of the file in its URL or in the local path of the request; "" for a file that the request sent.
    """

    stored: StoredFile
    inside: Path | None = None
    name: str = ""
