"""The store: files kept under the SHA-256 of their content, within a budget of bytes.

A blob is written under a temporary name and renamed, so it is complete or absent. Only `prepare` writes and evicts;
the other stages open the paths in their plan. A blob that an in-flight job uses is pinned: it is not evicted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lorikeet.protocol.shorten import shorten
from runtime.files.folder_size import FolderSize
from runtime.low_priority import call_at_low_priority

_CHUNK = 1 << 20
_LARGE = 64 << 20  # hashing more than this many bytes slows running jobs


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
        super().__init__(f"{shorten(path.name, 100)} was changed while it was in use: send the request again")
        self.path = path


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


class Pins:
    """The blobs that one job protects from eviction until `release`.

    A pin is a shared lock on the blob: every process that uses the folder sees it, and it ends with its process.
    """

    def __init__(self) -> None:
        self._held: list[BinaryIO] = []

    def add(self, path: Path) -> None:
        """Raises FileNotFoundError. The caller holds the lock under which blobs are evicted."""
        blob = path.open("rb")
        fcntl.flock(blob, fcntl.LOCK_SH)
        self._held.append(blob)

    def release(self) -> None:
        while self._held:
            self._held.pop().close()


class Store:
    """Content-addressed files under `folder`: at most `budget` bytes, not counting pinned files.

    `evictions`: how many files this process has evicted.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._blobs, self._index = folder / "blobs", folder / "index"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._index.mkdir(parents=True, exist_ok=True)
        self._budget, self._size = budget, FolderSize(self._blobs)
        self.evictions = 0
        self._writing = threading.Lock()
        self._lock_file = (folder / "lock").open("a")
        with self._exclusive():
            self._remove_leftovers()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self._size.nbytes()

    def put(self, chunks: Iterable[bytes], pins: Pins, suffix: str = "") -> StoredFile:
        """Store the content of `chunks` and pin it. The suffix (`.safetensors`) is part of the file name only."""
        digest = hashlib.sha256()
        with self._part(self._blobs) as (file, part):
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            _flush(file)
            path = self._blobs / (digest.hexdigest() + suffix)
            with self._exclusive():
                if path.exists():  # a pin is a lock on this inode, so the file is not replaced
                    os.utime(path)
                else:
                    part.replace(path)
                    fcntl.flock(file, fcntl.LOCK_UN)
                pins.add(path)
                self._evict()
        return StoredFile(path, digest.hexdigest())

    def blob(self, digest: str, pins: Pins, suffix: str = "") -> StoredFile | None:
        """The stored file with this digest, pinned and marked as just used; None: not stored."""
        stored = StoredFile(self._blobs / (digest + suffix), digest)
        with self._exclusive():
            try:
                pins.add(stored.path)
            except FileNotFoundError:
                return None
            os.utime(stored.path)
        return stored

    def pins(self) -> Pins:
        """A new, empty set of pins."""
        return Pins()

    def remember(self, key: str, value: dict[str, str]) -> None:
        """Store facts under a key (a URL's digest and ETag, a local file's digest) for `recall`."""
        with self._part(self._index) as (file, part):
            file.write(json.dumps(value).encode())
            file.flush()  # not synced: `recall` ignores a note that a power loss damaged
            part.replace(self._note(key))

    def recall(self, key: str) -> dict[str, str] | None:
        """The facts stored under the key, or None."""
        try:
            note: dict[str, str] = json.loads(self._note(key).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return note

    def digest_local(self, path: Path, check_cancelled: Callable[[], None] = lambda: None) -> StoredFile:
        """A file outside the store, hashed once for each fingerprint that it has.

        Raises FileChangedError, and what `check_cancelled` raises, which is called for every megabyte: hashing a
        checkpoint takes seconds.
        """
        fingerprint = file_fingerprint(path)
        key = f"file:{path}:{fingerprint}"
        note = self.recall(key)
        if note is None:
            is_large = path.stat().st_size > _LARGE
            hash_file = partial(_sha256, path, check_cancelled)
            digest = call_at_low_priority(hash_file) if is_large else hash_file()
            check_unchanged(path, fingerprint)
            note = {"digest": digest}
            self.remember(key, note)
        return StoredFile(path, note["digest"], fingerprint)

    def _note(self, key: str) -> Path:
        return self._index / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _evict(self) -> None:
        entries = [(entry.stat(), entry) for entry in self._blobs.iterdir() if not entry.name.startswith(".")]
        total = sum(stat.st_size for stat, _ in entries)
        for stat, entry in sorted(entries, key=lambda item: item[0].st_mtime_ns):
            if total <= self._budget:
                return
            if _remove_unlocked(entry):
                total -= stat.st_size
                self.evictions += 1

    def _remove_leftovers(self) -> None:
        """Remove the incomplete files of a killed process: their locks ended with it."""
        for folder in (self._blobs, self._index):
            for part in folder.glob(".part-*"):
                _remove_unlocked(part)

    @contextmanager
    def _part(self, folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A new locked file to write, and its path. It is removed at the end unless it was renamed."""
        with self._exclusive():
            descriptor, name = tempfile.mkstemp(prefix=".part-", dir=folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude the other threads of this process and the other processes that use the folder."""
        with self._writing:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def _sha256(path: Path, check_cancelled: Callable[[], None]) -> str:
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            check_cancelled()
            digest.update(chunk[:count])
    return digest.hexdigest()


def _flush(file: BinaryIO) -> None:
    """Write to the disk before the file is renamed: it is complete or absent after a power loss too."""
    file.flush()
    os.fsync(file.fileno())


def _remove_unlocked(path: Path) -> bool:
    """Remove a file unless it is locked. Returns whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
