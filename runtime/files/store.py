"""The store: files kept under the SHA-256 of their content, within a budget of bytes.

A blob is written under a temporary name and renamed, so it is complete or absent. Only `prepare` writes and evicts;
the other stages open the paths in their plan. A blob that an in-flight job uses is pinned: it is not evicted.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from runtime.files.blob_locks import BlobLocks, Pins
from runtime.files.file_digest import file_digest
from runtime.files.folder_size import FolderSize
from runtime.files.local_path import path_text
from runtime.files.store_error import StoreError, is_full
from runtime.files.store_index import NOTE, StoreIndex
from runtime.files.store_lock import StoreLock
from runtime.files.stored_file import StoredFile, check_unchanged, file_fingerprint
from runtime.files.unlocked_files import remove_junk, remove_unlocked
from runtime.files.use_time import mark_used

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_PART = ".part-"  # begins the names of files that are not complete
_BLOB = re.compile(r"[0-9a-f]{64}(\.safetensors)?")


class Store:
    """Content-addressed files under `folder`: at most `budget` bytes, not counting pinned files.

    A folder that another program deletes is made anew at the next use. `evictions`: how many files this process has
    evicted.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder, self._blobs, notes = folder, folder / "blobs", folder / "index"
        self._index = StoreIndex(notes)
        self._budget, self._size = budget, FolderSize(self._blobs)
        self.evictions = 0
        self._lock = StoreLock(folder, (self._blobs, notes))
        self._blob_locks = BlobLocks()
        with self._lock.exclusive():
            remove_junk(self._blobs, _BLOB)
            remove_junk(notes, NOTE)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self._size.nbytes()

    def put(
        self, chunks: Iterable[bytes], pins: Pins, suffix: str = "", check: Callable[[Path], None] = lambda _: None
    ) -> StoredFile:
        """Store the content of `chunks` and pin it. The suffix (`.safetensors`) is part of the file name only.

        `check` gets the path of the complete file before the store keeps it. When it raises, nothing is kept. While the
        disk is full, the least recently used files are evicted. Raises StoreError, and what `chunks` and `check` raise.
        """
        digest = hashlib.sha256()
        with self._part() as part:
            for chunk in chunks:
                digest.update(chunk)
                self._write(part.descriptor, chunk)
            self._evicting(partial(os.fsync, part.descriptor))  # it is complete or absent after a power loss too
            check(part.path)
            try:
                path = self._keep(part, digest.hexdigest() + suffix, pins)
            except OSError as error:
                raise StoreError(error) from error
        return StoredFile(path, digest.hexdigest())

    def blob(self, digest: str, pins: Pins, suffix: str = "") -> StoredFile | None:
        """The stored file with this digest, pinned and marked as just used; None: not stored."""
        stored = StoredFile(self._blobs / (digest + suffix), digest)
        try:
            with self._lock.exclusive():
                pins.add(stored.path)
                with suppress(OSError):  # a disk that became read-only
                    mark_used(stored.path)
        except OSError:
            return None
        return stored

    def pins(self) -> Pins:
        """A new, empty set of pins."""
        return Pins(self._blob_locks)

    def remember(self, key: str, facts: dict[str, str]) -> None:
        """Store facts under a key (a URL's digest and ETag, a local file's digest) for `recall`.

        A full disk is no error: the facts are then found out again at the next request.
        """
        try:
            with self._lock.exclusive():
                self._index.write(key, facts)
        except OSError as error:
            _log.warning("the store %s cannot remember a file: %s", path_text(self._folder), error)

    def recall(self, key: str) -> dict[str, str] | None:
        """The facts stored under the key, or None. The least recently used ones are forgotten (see `store_index`)."""
        return self._index.read(key)

    def digest_local(self, path: Path, check_cancelled: Callable[[], None] = lambda: None) -> StoredFile:
        """A file outside the store, hashed once for each fingerprint that it has.

        Raises FileChangedError, and what `check_cancelled` raises, which is called for every megabyte: hashing a
        checkpoint takes seconds.
        """
        fingerprint = file_fingerprint(path)
        key = f"file:{path}:{fingerprint}"
        note = self.recall(key)
        if note is None or "digest" not in note:
            digest = file_digest(path, check_cancelled)
            check_unchanged(path, fingerprint)
            note = {"digest": digest}
            self.remember(key, note)
        return StoredFile(path, note["digest"], fingerprint)

    def _write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._evicting(partial(os.write, descriptor, view)) :]

    def _evicting(self, action: Callable[[], _T]) -> _T:
        """The result of `action`, which is repeated after each eviction while the disk is full. Raises StoreError."""
        while True:
            try:
                return action()
            except OSError as error:
                if not is_full(error) or not self._evict_one():
                    raise StoreError(error) from error

    def _evict_one(self) -> bool:
        """Remove the least recently used file that no job has pinned. Returns whether there was one."""
        try:
            with self._lock.exclusive():
                return any(self._evict(path) for _, path in self._by_use())
        except OSError:
            return False

    def _evict(self, path: Path) -> bool:
        """Remove a file unless it is pinned. Returns whether it is gone."""
        is_gone = remove_unlocked(path)
        self.evictions += is_gone
        return is_gone

    def _keep(self, part: _Part, name: str, pins: Pins) -> Path:
        path = self._blobs / name
        with self._lock.exclusive():
            if path.exists():  # a pin is a lock on this inode, so the file is not replaced
                mark_used(path)
            else:
                part.path.replace(path)
                fcntl.flock(part.descriptor, fcntl.LOCK_UN)
            pins.add(path)
            remove_junk(self._blobs, _BLOB)
            stored = self._by_use()
            total = sum(size for size, _ in stored)
            for size, found in stored:
                if total > self._budget and self._evict(found):
                    total -= size
        return path

    def _by_use(self) -> list[tuple[int, Path]]:
        """Bytes and path of each stored file, the least recently used first."""
        found = []
        for path in self._blobs.iterdir():
            with suppress(FileNotFoundError):
                stat = path.lstat()
                if not path.name.startswith(_PART):
                    found.append((stat.st_mtime_ns, stat.st_size, path))
        return [(size, path) for _, size, path in sorted(found)]

    @contextmanager
    def _part(self) -> Iterator[_Part]:
        """A new locked file to write. It is removed at the end unless it was renamed."""
        part = self._evicting(self._new_part)
        try:
            yield part
        finally:
            os.close(part.descriptor)
            with suppress(OSError):
                part.path.unlink(missing_ok=True)

    def _new_part(self) -> _Part:
        with self._lock.exclusive():
            descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self._blobs)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return _Part(descriptor, Path(name))


@dataclass(frozen=True)
class _Part:
    """A file that is not complete yet, and its open descriptor, which holds an exclusive lock on it."""

    descriptor: int
    path: Path
