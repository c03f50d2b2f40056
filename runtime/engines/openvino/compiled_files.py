"""Compiled models on disk, so that a restarted server does not compile the same weights again."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from runtime.files.local_path import path_text

_log = logging.getLogger("lorikeet")
_DIGEST_BYTES = hashlib.sha256().digest_size  # of the content, before the content


class CompiledFiles:
    """Files by key, of at most `limit` bytes together; the least recently used are removed first.

    Several processes may use the folder. A full or damaged disk is no error: models are then compiled.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def read(self, key: str) -> bytes | None:
        """The content that was written for this key; None if there is none, or if it is damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                digest, content = file.read(_DIGEST_BYTES), file.read()
            with suppress(OSError):  # a folder that the server may only read
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s cannot be read (%s); its model is compiled again", path_text(path), error.strerror)
            return None
        if hashlib.sha256(content).digest() != digest:
            _log.warning("%s is damaged; its model is compiled again", path_text(path))
            return None
        return content

    def can_hold(self, nbytes: int) -> bool:
        """Whether the limit allows a content of this size."""
        return _DIGEST_BYTES + nbytes <= self._limit

    def write(self, key: str, content: bytes) -> None:
        """Keep the content, if it fits into the limit, instead of what was written for this key before."""
        if not self.can_hold(len(content)):
            return
        path = self._path(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")  # one thread at a time writes
            try:
                with part.open("wb") as file:
                    file.write(hashlib.sha256(content).digest())
                    file.write(content)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._shrink()
        except OSError as error:
            _log.warning("%s cannot keep a compiled model (%s)", path_text(self._folder), error.strerror)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _shrink(self) -> None:
        """Remove files until the limit holds. What a killed process left is removed as the others are."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process removed it
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= size
