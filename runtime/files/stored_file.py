"""A file on local disk that is known by the digest of its content, and how a change of it is noticed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lorikeet.protocol.shorten import shorten
from runtime.files.local_path import path_text


@dataclass(frozen=True)
class StoredFile:
    """A file on local disk and the SHA-256 of its content (64 hexadecimal digits).

    `fingerprint` is the `file_fingerprint` of a file outside the store, which other programs may change. It is "" in
    the store, where no file changes.
    """

    path: Path
    digest: str
    fingerprint: str = ""


class FileChangedError(Exception):
    """A file is no longer the one that was hashed; the message is fit for the client."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{shorten(path_text(Path(path.name)), 100)} was changed while it was in use: send the request again"
        )


def file_fingerprint(file: Path | int) -> str:
    """Identity, size and times of a file (a path or a descriptor): every change of the file changes it.

    The owner of a file can set all of them but the ctime. Raises OSError.
    """
    stat = file.stat() if isinstance(file, Path) else os.fstat(file)
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def check_unchanged(path: Path, fingerprint: str) -> None:
    """Raises FileChangedError when the file has another fingerprint. With "" nothing is checked."""
    try:
        if fingerprint and fingerprint != file_fingerprint(path):
            raise FileChangedError(path)
    except OSError as error:
        raise FileChangedError(path) from error
