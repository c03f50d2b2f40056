"""The store: files kept under the SHA-256 of their content, within a budget of bytes.

A blob is written to a temporary name and renamed, so it is whole or absent. Only `prepare` writes and evicts; other
stages open what their plan names. A blob that an in-flight job uses is pinned and stays.
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
from pathlib import Path
from typing import BinaryIO

from runtime.low_priority import call_at_low_priority

_CHUNK = 1 << 20
_LARGE = 64 << 20  # bytes whose hash is felt by who runs
_SHOWN = 100


@dataclass(frozen=True)
class StoredFile:
    """A file on local disk and the SHA-256 of its content (64 hexadecimal digits).

    `stamp` is that of a file outside the store, which others may write; "" in the store, where nothing changes.
    """

    path: Path
    digest: str
    stamp: str = ""


class FileChangedError(Exception):
    """A file is no longer the one that was hashed; the message is fit for the client."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name[:_SHOWN]} was changed while it was in use")
        self.path = path


def file_fingerprint(file: Path | int) -> str:
    """Identity, size and times of a file (a path or a descriptor): every change of the file changes it.

    The owner of a file can set all of them but the ctime. Raises OSError.
    """
    stat = file.stat() if isinstance(file, Path) else os.fstat(file)
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def check_unchanged(path: Path, stamp: str) -> None:
    """Raises FileChangedError where a file that has a stamp is no longer the one that got it."""
    try:
        if stamp and stamp != file_fingerprint(path):
            raise FileChangedError(path)
    except OSError as error:
        raise FileChangedError(path) from error


class Pins:
    """Blobs that one job keeps from eviction, until it releases them all.

    A pin is a shared lock on the blob: every process that shares the folder sees it, and it ends with its process.
    """

    def __init__(self) -> None:
        self._held: list[BinaryIO] = []

    def add(self, path: Path) -> None:
        """Raises FileNotFoundError. Called where nobody evicts."""
        blob = path.open("rb")
        fcntl.flock(blob, fcntl.LOCK_SH)
        self._held.append(blob)

    def release(self) -> None:
        while self._held:
            self._held.pop().close()


class Store:
    """Content-addressed files under `folder`, at most `budget` bytes of them besides what is pinned."""

    def __init__(self, folder: Path, budget: int) -> None:
        self._blobs, self._index = folder / "blobs", folder / "index"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._index.mkdir(parents=True, exist_ok=True)
        self._budget = budget
        self._writing = threading.Lock()
        self._lock_file = (folder / "lock").open("a")
        with self._exclusive():
            self._remove_leftovers()

    def put(self, chunks: Iterable[bytes], pins: Pins, suffix: str = "") -> StoredFile:
        """Keep the content of `chunks`, pinned. The suffix (`.safetensors`) is part of the name only."""
        digest = hashlib.sha256()
        with self._part(self._blobs) as (file, part):
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            _flush(file)
            path = self._blobs / (digest.hexdigest() + suffix)
            with self._exclusive():
                if path.exists():  # others may have pinned it: it must stay the very same file
                    os.utime(path)
                else:
                    part.replace(path)
                    fcntl.flock(file, fcntl.LOCK_UN)
                pins.add(path)
                self._evict()
        return StoredFile(path, digest.hexdigest())

    def blob(self, digest: str, pins: Pins, suffix: str = "") -> StoredFile | None:
        """The kept file of that digest, pinned and marked as just used, or None."""
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
        """Note facts about a name (a URL's digest and ETag, a local file's digest), for `recall`."""
        with self._part(self._index) as (file, part):
            file.write(json.dumps(value).encode())
            file.flush()  # no further: a note that a loss of power spoils is not there
            part.replace(self._note(key))

    def recall(self, key: str) -> dict[str, str] | None:
        """What was noted under the key, or None."""
        try:
            note: dict[str, str] = json.loads(self._note(key).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return note

    def digest_local(self, path: Path, stop: Callable[[], None] = lambda: None) -> StoredFile:
        """A file outside the store, hashed once for as long as its stamp stays.

        `stop` is asked often meanwhile, and may raise: a checkpoint of gigabytes takes seconds.

        Raises FileChangedError.
        """
        stamp = file_fingerprint(path)
        key = f"file:{path}:{stamp}"
        note = self.recall(key)
        if note is None:
            is_large = path.stat().st_size > _LARGE
            digest = call_at_low_priority(lambda: _sha256(path, stop)) if is_large else _sha256(path, stop)
            check_unchanged(path, stamp)
            note = {"digest": digest}
            self.remember(key, note)
        return StoredFile(path, note["digest"], stamp)

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

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left half written: nobody holds its lock any more."""
        for folder in (self._blobs, self._index):
            for part in folder.glob(".part-*"):
                _remove_unlocked(part)

    @contextmanager
    def _part(self, folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file to write, locked meanwhile, and where it lies; unless it is renamed, it is removed at the end."""
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
        """Alone among the threads of this process and the processes that share the folder."""
        with self._writing:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def _sha256(path: Path, stop: Callable[[], None]) -> str:
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            stop()
            digest.update(chunk[:count])
    return digest.hexdigest()


def _flush(file: BinaryIO) -> None:
    """To the disk, before the file gets its name: after a loss of power it is whole or absent too."""
    file.flush()
    os.fsync(file.fileno())


def _remove_unlocked(path: Path) -> bool:
    """Remove a file that nobody holds a lock on; whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
