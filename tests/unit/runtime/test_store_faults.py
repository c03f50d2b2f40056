"""The store when the disk is full or fails, its folder is deleted, or a write breaks off."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.files.store import Store
from runtime.files.store_error import StoreError
from tests.unit.runtime.faults import fill_disk, raising
from tests.unit.runtime.store_files import age, descriptors, put, stored_names


def test_a_file_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    pins = store.pins()
    with pytest.raises(ConnectionError):
        store.put(chunks(), pins)
    assert stored_names(tmp_path / "store") == set()


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, 100)
    for folder in ("blobs", "index"):
        (tmp_path / folder / ".part-dead").write_bytes(b"half")

    def chunks() -> Iterator[bytes]:
        yield b"a"
        Store(tmp_path, 100)
        yield b"b"

    assert store.put(chunks(), store.pins()).path.read_bytes() == b"ab"
    assert list(tmp_path.rglob(".part-*")) == []


def test_a_file_that_fails_its_check_is_not_kept(store: Store, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        assert path.read_bytes() == b"abc"
        raise ValueError("not a weight file")

    for _ in range(2):
        with pytest.raises(ValueError, match="not a weight file"):
            store.put([b"ab", b"c"], store.pins(), check=check)
        assert stored_names(tmp_path / "store") == set()
    assert store.put([b"abc"], store.pins(), check=lambda path: None).path.read_bytes() == b"abc"


class _Disk:
    """A disk of `capacity` bytes under a store: writing past it fails as on a full one."""

    def __init__(self, folder: Path, capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._capacity, self._write = folder, capacity, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        used = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if used >= self._capacity:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(descriptor, data[: self._capacity - used])


def test_a_full_disk_evicts_the_least_recently_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, budget=1000)
    old, used, pinned = (put(store, letter * 10) for letter in (b"a", b"b", b"c"))
    for seconds, digest in ((30, pinned), (20, old), (10, used)):
        age(store, tmp_path, digest, seconds)
    pins = store.pins()
    assert store.blob(pinned, pins)
    _Disk(tmp_path, 35, monkeypatch)
    new = put(store, b"d" * 12)
    assert stored_names(tmp_path) == {used, pinned, new}
    larger = put(store, b"e" * 25)
    assert stored_names(tmp_path) == {pinned, larger}


def test_a_full_disk_is_an_error_when_nothing_can_be_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, budget=1000)
    pins = store.pins()
    kept = store.put([b"a" * 30], pins)
    _Disk(tmp_path, 35, monkeypatch)
    for _ in range(3):
        with pytest.raises(StoreError, match=r"the disk of the server's store .* is full: try again later"):
            store.put([b"b" * 10], store.pins())
        assert stored_names(tmp_path) == {kept.digest}
    assert store.blob(kept.digest, store.pins()) == kept
    assert store.put([b"c" * 5], store.pins()).path.read_bytes() == b"c" * 5


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_fails_hurts_no_request_that_needs_no_space(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kept = store.put([b"abc"], store.pins())
    (tmp_path / "local").write_bytes(b"local")
    error = OSError(number, os.strerror(number))
    fill_disk(monkeypatch, number)
    for name in ("mkstemp", "utime", "write_text"):
        owner: Any = {"mkstemp": tempfile, "utime": os, "write_text": Path}[name]
        monkeypatch.setattr(owner, name, raising(error))
    assert store.blob(kept.digest, store.pins()) == kept
    assert store.digest_local(tmp_path / "local").digest == hashlib.sha256(b"local").hexdigest()
    with pytest.raises(StoreError, match="full" if number in (errno.ENOSPC, errno.EDQUOT) else os.strerror(number)):
        store.put([b"new"], store.pins())


@pytest.mark.parametrize("deleted", ["", "blobs", "index", "lock"])
def test_a_deleted_folder_is_made_anew(store: Store, tmp_path: Path, deleted: str) -> None:
    folder = tmp_path / "store"
    store.put([b"abc"], store.pins())
    for _ in range(2):
        path = folder / deleted
        path.unlink() if path.is_file() else shutil.rmtree(path)
        assert store.recall("url:a") is None or deleted in ("blobs", "lock")
        assert store.blob(hashlib.sha256(b"other").hexdigest(), store.pins()) is None
        assert store.put([b"abc"], store.pins()).path.read_bytes() == b"abc"
        store.remember("url:a", {"etag": "1"})
        assert store.recall("url:a") == {"etag": "1"}
        other = Store(folder, 100)
        assert other.put([b"abc"], other.pins()) == store.put([b"abc"], store.pins())


def test_a_file_of_a_deleted_folder_is_pinned_by_its_own_lock(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", budget=0)
    pins = store.pins()
    first = store.put([b"abc"], pins)
    shutil.rmtree(tmp_path / "store")
    store.put([b"abc"], pins)
    put(store, b"x")
    assert first.path.exists()
    pins.release()
    put(store, b"y")
    assert not first.path.exists()


def test_a_folder_that_is_deleted_during_a_download_is_an_error(store: Store, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        shutil.rmtree(tmp_path / "store")

    with pytest.raises(StoreError, match="was deleted while it was in use: send the request again"):
        store.put(chunks(), store.pins())
    assert store.put([b"ab"], store.pins()).path.read_bytes() == b"ab"


def _litter(folder: Path) -> None:
    """What no store writes."""
    (folder / ".part-dead").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    (folder / ("a" * 64 + ".bin")).write_bytes(b"unknown")
    (folder / "folder" / "inner").mkdir(parents=True)
    (folder / "folder" / "file").write_bytes(b"")
    (folder / "link").symlink_to(folder.parent / "lock")
    (folder / ("b" * 64)).symlink_to(folder.parent / "lock")
    os.mkfifo(folder / "pipe")


def test_junk_is_removed_at_the_start_and_when_a_file_is_put(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    kept = store.put([b"abc"], store.pins(), ".safetensors").path.name
    store.remember("url:a", {"etag": "1"})
    _litter(folder / "blobs")
    store.put([b"abc"], store.pins(), ".safetensors")
    assert stored_names(folder) == {kept}
    _litter(folder / "blobs")
    _litter(folder / "index")
    assert Store(folder, 100).recall("url:a") == {"etag": "1"}
    assert stored_names(folder) == {kept}
    assert len(list((folder / "index").iterdir())) == 1
    assert (folder / "lock").exists()


def test_no_descriptor_is_left_open(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    before = descriptors()
    for turn in range(20):
        with suppress(ConnectionError):
            store.put(broken(), store.pins())
        with suppress(ValueError):
            store.put([b"x"], store.pins(), check=raising(ValueError()))
        store.blob("0" * 64, store.pins())
        store.remember("url:a", {"turn": str(turn)})
        (tmp_path / "local").write_text(str(turn))
        store.digest_local(tmp_path / "local")
        with monkeypatch.context() as patch:
            fill_disk(patch)
            with suppress(StoreError):
                store.put([b"y"], store.pins())
        if turn % 5 == 0:
            shutil.rmtree(tmp_path / "store")
    assert descriptors() == before
