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
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
_LEFTOVER_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StoredFile:
    """A file on local disk and the SHA-256 of its content (64 hexadecimal digits)."""

    path: Path
    digest: str


class Pins:
    """Blobs that one job keeps from eviction, until it releases them all."""

    def __init__(self, pinned: Counter[str], lock: threading.Lock) -> None:
        self._pinned, self._lock = pinned, lock
        self._mine: list[str] = []

    def add(self, digest: str) -> None:
        with self._lock:
            self._pinned[digest] += 1
            self._mine.append(digest)

    def release(self) -> None:
        with self._lock:
            self._pinned.subtract(self._mine)
            self._mine.clear()


class Store:
    """Content-addressed files under `folder`, at most `budget` bytes of them besides what is pinned."""

    def __init__(self, folder: Path, budget: int) -> None:
        self._blobs, self._index = folder / "blobs", folder / "index"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._index.mkdir(parents=True, exist_ok=True)
        self._budget = budget
        self._pinned: Counter[str] = Counter()
        self._pinning, self._writing = threading.Lock(), threading.Lock()
        self._lock_file = (folder / "lock").open("a")
        self._remove_leftovers()

    def put(self, chunks: Iterable[bytes], pins: Pins, suffix: str = "") -> StoredFile:
        """Keep the content of `chunks`, pinned. The suffix (`.safetensors`) is part of the name only."""
        digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(prefix=".part-", dir=self._blobs)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            path = self._blobs / (digest.hexdigest() + suffix)
            with self._exclusive():
                pins.add(digest.hexdigest())
                Path(name).replace(path)
                self._evict()
        finally:
            Path(name).unlink(missing_ok=True)
        return StoredFile(path, digest.hexdigest())

    def blob(self, digest: str, pins: Pins, suffix: str = "") -> StoredFile | None:
        """The kept file of that digest, pinned and marked as just used, or None."""
        stored = StoredFile(self._blobs / (digest + suffix), digest)
        with self._exclusive():
            try:
                os.utime(stored.path)
            except FileNotFoundError:
                return None
            pins.add(digest)
        return stored

    def pins(self) -> Pins:
        """A new, empty set of pins."""
        return Pins(self._pinned, self._pinning)

    def remember(self, key: str, value: dict[str, str]) -> None:
        """Note facts about a name (a URL's digest and ETag, a local file's digest), for `recall`."""
        path = self._note(key)
        descriptor, name = tempfile.mkstemp(prefix=".part-", dir=self._index)
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
        Path(name).replace(path)

    def recall(self, key: str) -> dict[str, str] | None:
        """What was noted under the key, or None."""
        try:
            note: dict[str, str] = json.loads(self._note(key).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return note

    def digest_local(self, path: Path) -> StoredFile:
        """A file outside the store, hashed once for as long as its identity, size and time of change stay."""
        stat = path.stat()
        key = f"file:{path}:{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
        note = self.recall(key)
        if note is None:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
            note = {"digest": digest.hexdigest()}
            self.remember(key, note)
        return StoredFile(path, note["digest"])

    def _note(self, key: str) -> Path:
        return self._index / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _evict(self) -> None:
        entries = [(entry.stat(), entry) for entry in self._blobs.iterdir() if not entry.name.startswith(".")]
        total = sum(stat.st_size for stat, _ in entries)
        for stat, entry in sorted(entries, key=lambda item: item[0].st_mtime_ns):
            if total <= self._budget:
                return
            if self._pinned[entry.name[:64]] <= 0:
                entry.unlink(missing_ok=True)
                total -= stat.st_size

    def _remove_leftovers(self) -> None:
        """Remove what a killed process left half written; another server's own are younger."""
        for folder in (self._blobs, self._index):
            for part in folder.glob(".part-*"):
                with suppress(FileNotFoundError):
                    if time.time() - part.stat().st_mtime > _LEFTOVER_SECONDS:
                        part.unlink()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Alone among the threads of this process and the processes that share the folder."""
        with self._writing:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
