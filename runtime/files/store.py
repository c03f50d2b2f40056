"""The store: files kept under the SHA-256 of their content, within a budget of bytes.

A blob is written under a temporary name and renamed, so it is complete or absent. Only `prepare` writes and evicts;
the other stages open the paths in their plan. A blob that an in-flight job uses is pinned: it is not evicted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from lorikeet.protocol.shorten import shorten
from runtime.files.blob_locks import BlobLocks, Pins
from runtime.files.folder_size import FolderSize
from runtime.files.local_path import path_text
from runtime.files.store_index import NOTE, StoreIndex
from runtime.files.use_time import mark_used
from runtime.low_priority import call_at_low_priority

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_LARGE = 64 << 20  # hashing more than this many bytes slows running jobs
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PART = ".part-"  # begins the names of files that are not complete
_BLOB = re.compile(r"[0-9a-f]{64}(\.safetensors)?")


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


class StoreError(Exception):
    """The store cannot keep a file, because its disk is full or fails; the message is fit for the client."""

    def __init__(self, error: OSError) -> None:
        if error.errno in _FULL:
            reason = "the disk of the server's store (LORIKEET_STORE) is full: try again later"
        elif isinstance(error, FileNotFoundError):
            reason = "the server's store was deleted while it was in use: send the request again"
        else:
            reason = f"the server cannot write to its store, LORIKEET_STORE ({error.strerror})"
        super().__init__(reason)


class Store:
    """Content-addressed files under `folder`: at most `budget` bytes, not counting pinned files.

    A folder that another program deletes is made anew at the next use. `evictions`: how many files this process has
    evicted.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder, self._blobs, self._notes = folder, folder / "blobs", folder / "index"
        self._index = StoreIndex(self._notes)
        self._budget, self._size = budget, FolderSize(self._blobs)
        self.evictions = 0
        self._writing = threading.Lock()
        self._locks = BlobLocks()
        self._lock_file: BinaryIO | None = None
        with self._exclusive():
            _remove_junk(self._blobs, _BLOB)
            _remove_junk(self._notes, NOTE)

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
            with self._exclusive():
                pins.add(stored.path)
                with suppress(OSError):  # a disk that became read-only
                    mark_used(stored.path)
        except OSError:
            return None
        return stored

    def pins(self) -> Pins:
        """A new, empty set of pins."""
        return Pins(self._locks)

    def remember(self, key: str, facts: dict[str, str]) -> None:
        """Store facts under a key (a URL's digest and ETag, a local file's digest) for `recall`.

        A full disk is no error: the facts are then found out again at the next request.
        """
        try:
            with self._exclusive():
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
            is_large = path.stat().st_size > _LARGE
            hash_file = partial(_sha256, path, check_cancelled)
            digest = call_at_low_priority(hash_file) if is_large else hash_file()
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
                if error.errno not in _FULL or not self._evict_one():
                    raise StoreError(error) from error

    def _evict_one(self) -> bool:
        """Remove the least recently used file that no job has pinned. Returns whether there was one."""
        try:
            with self._exclusive():
                return any(self._evict(path) for _, path in self._by_use())
        except OSError:
            return False

    def _evict(self, path: Path) -> bool:
        """Remove a file unless it is pinned. Returns whether it is gone."""
        is_gone = _remove_unlocked(path)
        self.evictions += is_gone
        return is_gone

    def _keep(self, part: _Part, name: str, pins: Pins) -> Path:
        path = self._blobs / name
        with self._exclusive():
            if path.exists():  # a pin is a lock on this inode, so the file is not replaced
                mark_used(path)
            else:
                part.path.replace(path)
                fcntl.flock(part.descriptor, fcntl.LOCK_UN)
            pins.add(path)
            _remove_junk(self._blobs, _BLOB)
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
        with self._exclusive():
            descriptor, name = tempfile.mkstemp(prefix=_PART, dir=self._blobs)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return _Part(descriptor, Path(name))

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Exclude the other threads of this process and the other processes that use the folder. Raises OSError."""
        with self._writing:
            lock_file = self._locked()
            try:
                yield
            finally:
                fcntl.flock(lock_file, fcntl.LOCK_UN)

    def _locked(self) -> BinaryIO:
        """The lock file, locked. The folders that are missing are made."""
        while True:
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._notes.mkdir(parents=True, exist_ok=True)
            if self._lock_file is None:
                self._lock_file = (self._folder / "lock").open("ab")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            if _is_same(self._lock_file, self._folder / "lock"):
                return self._lock_file
            self._lock_file.close()  # of a folder that was deleted
            self._lock_file = None


@dataclass(frozen=True)
class _Part:
    """A file that is not complete yet, and its open descriptor, which holds an exclusive lock on it."""

    descriptor: int
    path: Path


def _sha256(path: Path, check_cancelled: Callable[[], None]) -> str:
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            check_cancelled()
            digest.update(chunk[:count])
    return digest.hexdigest()


def _is_same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_junk(folder: Path, known: re.Pattern[str]) -> None:
    """Remove what is no file of the store, and the incomplete files of killed processes: their locks are gone."""
    with os.scandir(folder) as entries:
        junk = [
            entry for entry in entries if not (known.fullmatch(entry.name) and entry.is_file(follow_symlinks=False))
        ]
    for entry in junk:
        with suppress(OSError):
            _remove_entry(entry)


def _remove_unlocked(path: Path) -> bool:
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


def _remove_entry(entry: os.DirEntry[str]) -> None:
    """Remove a file unless it is locked, a folder, or anything else. Raises OSError."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    elif entry.is_file(follow_symlinks=False):
        _remove_unlocked(Path(entry.path))
    else:  # a link, or a named pipe: opening it would wait for its writer
        Path(entry.path).unlink()
