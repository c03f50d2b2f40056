"""The store: files by their SHA-256, whole or absent, within a budget that pinned files may exceed."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.files.store import FileChangedError, Store, StoreError, check_unchanged
from tests.unit.runtime.faults import fill_disk, raising

_TICK_SECONDS = 0.05  # file systems' clocks tick every few milliseconds


def _files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").iterdir()}


def _put(store: Store, content: bytes) -> str:
    """Put, and let go at once."""
    pins = store.pins()
    digest = store.put([content], pins).digest
    pins.release()
    return digest


def _age(store: Store, folder: Path, digest: str, seconds: float) -> None:
    path = folder / "blobs" / digest
    os.utime(path, (time.time() - seconds,) * 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(chunks=st.lists(st.binary(max_size=200), max_size=5))
def test_a_file_is_kept_under_its_digest(store: Store, chunks: list[bytes]) -> None:
    stored = store.put(iter(chunks), store.pins(), ".safetensors")
    content = b"".join(chunks)
    assert stored.digest == hashlib.sha256(content).hexdigest()
    assert stored.path.name == f"{stored.digest}.safetensors"
    assert stored.path.read_bytes() == content


def test_the_same_content_is_kept_once(store: Store, tmp_path: Path) -> None:
    assert store.put([b"ab", b"c"], store.pins()) == store.put([b"abc"], store.pins())
    assert _files(tmp_path / "store") == {hashlib.sha256(b"abc").hexdigest()}


def test_a_file_that_breaks_off_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    pins = store.pins()
    with pytest.raises(ConnectionError):
        store.put(chunks(), pins)
    assert _files(tmp_path / "store") == set()


def test_a_file_is_absent_until_it_is_whole(store: Store, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        assert all(name.startswith(".") for name in _files(tmp_path / "store"))
        yield b"c"

    store.put(chunks(), store.pins())


def test_what_was_put_is_found_again_later(store: Store, tmp_path: Path) -> None:
    stored = store.put([b"abc"], store.pins(), ".safetensors")
    assert Store(tmp_path / "store", 100).blob(stored.digest, store.pins(), ".safetensors") == stored
    assert store.blob(hashlib.sha256(b"other").hexdigest(), store.pins()) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=30)
    old, used, new = (_put(store, letter * 10) for letter in (b"a", b"b", b"c"))
    for seconds, digest in ((30, used), (20, old), (10, new)):
        _age(store, tmp_path, digest, seconds)
    pins = store.pins()
    assert store.blob(used, pins) is not None
    pins.release()
    latest = _put(store, b"d" * 10)
    assert old not in _files(tmp_path)
    assert _files(tmp_path) == {used, new, latest}


def test_bytes_and_evictions_are_known(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=25)
    sizes = []
    for letter in (b"a", b"b", b"c"):
        digest = _put(store, letter * 10)
        sizes.append(store.nbytes)
        _age(store, tmp_path, digest, 100)
    assert (sizes, store.evictions) == ([10, 20, 20], 1)
    (tmp_path / "blobs" / ".part-x").write_bytes(b"incomplete")
    assert store.nbytes == 20


def test_the_size_of_a_settled_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, budget=100)
    _put(store, b"abc")
    long_ago = time.time() - 100
    os.utime(tmp_path / "blobs", (long_ago, long_ago))
    assert store.nbytes == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", _unexpected)
        assert store.nbytes == 3
    _put(store, b"de")
    assert store.nbytes == 5


def _unexpected(*_: object) -> None:
    raise AssertionError("the folder was read again")


def test_a_pinned_file_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=10)
    pins = store.pins()
    kept = store.put([b"a" * 10], pins).digest
    _age(store, tmp_path, kept, 100)
    gone = _put(store, b"b" * 10)
    assert kept in _files(tmp_path)
    pins.release()
    last = _put(store, b"c" * 10)
    assert kept not in _files(tmp_path)
    assert _files(tmp_path) <= {gone, last}


def test_a_file_that_two_jobs_pin_stays_until_both_let_go(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=0)
    first, second = store.pins(), store.pins()
    digest = store.put([b"abc"], first).digest
    store.put([b"abc"], second)
    first.release()
    first.release()  # a second time is no second pin
    _put(store, b"x")
    assert digest in _files(tmp_path)
    second.release()
    _put(store, b"y")
    assert digest not in _files(tmp_path)


def test_a_file_larger_than_the_budget_serves_the_job_that_needs_it(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=5)
    stored = store.put([b"a" * 10], store.pins())
    assert stored.path.read_bytes() == b"a" * 10


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


_PIN = """
import sys
from pathlib import Path
from runtime.files.store import Store
store = Store(Path(sys.argv[1]), 0)
pins = store.pins()
print(store.put([b"abc"], pins).digest, flush=True)
sys.stdin.read()
"""


def test_what_another_process_pins_stays_while_it_lives(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PIN, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        digest = other.stdout.readline().strip()
        store = Store(tmp_path, 0)
        _put(store, b"x")
        assert digest in _files(tmp_path)
        other.kill()
    _put(store, b"y")
    assert digest not in _files(tmp_path)


def test_what_is_put_again_is_the_very_same_file(store: Store) -> None:
    """Its pins are locks on it."""
    first = store.put([b"abc"], store.pins()).path.stat().st_ino
    assert store.put([b"abc"], store.pins()).path.stat().st_ino == first


def test_pins_that_nobody_holds_any_more_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=0)
    digest = store.put([b"abc"], store.pins()).digest
    _put(store, b"x")
    assert digest not in _files(tmp_path)


@pytest.mark.parametrize("note", [b"[]", b"5", b'{"a": 5}', b"\xff", b""])
def test_a_note_of_another_form_is_no_note(store: Store, tmp_path: Path, note: bytes) -> None:
    store.remember("url:a", {})
    (path,) = (tmp_path / "store" / "index").iterdir()
    path.write_bytes(note)
    assert store.recall("url:a") is None


def test_a_file_that_fails_its_check_is_not_kept(store: Store, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        assert path.read_bytes() == b"abc"
        raise ValueError("not a weight file")

    for _ in range(2):
        with pytest.raises(ValueError, match="not a weight file"):
            store.put([b"ab", b"c"], store.pins(), check=check)
        assert _files(tmp_path / "store") == set()
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
    old, used, pinned = (_put(store, letter * 10) for letter in (b"a", b"b", b"c"))
    for seconds, digest in ((30, pinned), (20, old), (10, used)):
        _age(store, tmp_path, digest, seconds)
    pins = store.pins()
    assert store.blob(pinned, pins)
    _Disk(tmp_path, 35, monkeypatch)
    new = _put(store, b"d" * 12)
    assert _files(tmp_path) == {used, pinned, new}
    larger = _put(store, b"e" * 25)
    assert _files(tmp_path) == {pinned, larger}


def test_a_full_disk_is_an_error_when_nothing_can_be_evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, budget=1000)
    pins = store.pins()
    kept = store.put([b"a" * 30], pins)
    _Disk(tmp_path, 35, monkeypatch)
    for _ in range(3):
        with pytest.raises(StoreError, match=r"the disk of the server's store .* is full: try again later"):
            store.put([b"b" * 10], store.pins())
        assert _files(tmp_path) == {kept.digest}
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
    _put(store, b"x")
    assert first.path.exists()
    pins.release()
    _put(store, b"y")
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
    assert _files(folder) == {kept}
    _litter(folder / "blobs")
    _litter(folder / "index")
    assert Store(folder, 100).recall("url:a") == {"etag": "1"}
    assert _files(folder) == {kept}
    assert len(list((folder / "index").iterdir())) == 1
    assert (folder / "lock").exists()


def _descriptors() -> int:
    gc.collect()  # of other tests' files
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_has_one_descriptor_however_many_pin_it(store: Store, tmp_path: Path) -> None:
    before = _descriptors()
    jobs = [store.pins() for _ in range(20)]
    for pins in jobs:
        for content in (b"a", b"b", b"c"):
            digest = store.put([content], pins).digest
            assert store.blob(digest, pins)
    assert _descriptors() == before + 3
    for pins in jobs[:19]:
        pins.release()
    assert _descriptors() == before + 3
    jobs[19].release()
    assert _descriptors() == before


def test_no_descriptor_is_left_open(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    before = _descriptors()
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
    assert _descriptors() == before


def test_notes_are_recalled_by_any_store_of_the_folder(store: Store, tmp_path: Path) -> None:
    assert store.recall("url:a") is None
    store.remember("url:a", {"etag": '"1"'})
    store.remember("url:a", {"etag": '"2"'})
    assert Store(tmp_path / "store", 1).recall("url:a") == {"etag": '"2"'}
    assert store.recall("url:b") is None


def test_a_damaged_note_is_no_note(store: Store, tmp_path: Path) -> None:
    store.remember("url:a", {})
    (note,) = (tmp_path / "store" / "index").iterdir()
    note.write_text("{")
    assert store.recall("url:a") is None


def test_a_local_file_is_hashed_anew_when_it_changed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert store.digest_local(path).digest == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # a clock tick is milliseconds long
    assert store.digest_local(path).digest == hashlib.sha256(b"two").hexdigest()


def test_a_file_put_in_anothers_place_is_hashed_anew(store: Store, tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"one")
    store.digest_local(path)
    other.write_bytes(b"two")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)
    assert store.digest_local(path).digest == hashlib.sha256(b"two").hexdigest()


def test_a_local_file_is_read_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = store.digest_local(path)
    monkeypatch.setattr(hashlib, "sha256", _refuse_content(b"one"))
    assert store.digest_local(path) == first


def test_hashing_a_local_file_stops_when_told_to(store: Store, tmp_path: Path) -> None:
    def stop() -> None:
        raise InterruptedError

    path = tmp_path / "file"
    path.write_bytes(b"one")
    with pytest.raises(InterruptedError):
        store.digest_local(path, stop)
    assert store.digest_local(path).digest == hashlib.sha256(b"one").hexdigest()


def _refuse_content(content: bytes) -> type:
    sha256 = hashlib.sha256

    class Refusing:
        def __init__(self, data: bytes = b"") -> None:
            self._inner = sha256(data)

        def update(self, data: bytes) -> None:
            assert data != content, "the file was hashed again"
            self._inner.update(data)

        def hexdigest(self) -> str:
            return self._inner.hexdigest()

    return Refusing


_CONTENTS = [bytes([n]) * 1000 for n in range(10)]
_DIGESTS = {hashlib.sha256(content).hexdigest(): content for content in _CONTENTS}


def test_threads_put_at_the_same_time(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=4000)
    failures: list[BaseException] = []

    def work(offset: int) -> None:
        try:
            for n in range(40):
                pins = store.pins()
                content = _CONTENTS[(n + offset) % 10]
                assert store.put([content], pins).path.read_bytes() == content
                pins.release()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    _check_whole(tmp_path)


def test_processes_put_at_the_same_time(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from runtime.files.store import Store\n"
        "store = Store(Path(sys.argv[1]), 1 << 20)\n"
        "for n in list(range(10)) * 20: store.put([bytes([n]) * 1000], store.pins())"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, tmp_path]) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    _check_whole(tmp_path)
    assert _files(tmp_path) == set(_DIGESTS)


def _check_whole(folder: Path) -> None:
    found = {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}
    assert found.items() <= _DIGESTS.items()
    assert found


def test_a_file_whose_time_was_set_back_is_hashed_anew(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    written = path.stat().st_mtime_ns
    store.digest_local(path)
    time.sleep(_TICK_SECONDS)
    path.write_bytes(b"two")
    os.utime(path, ns=(written, written))
    assert store.digest_local(path).digest == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_changes_while_it_is_hashed_has_no_digest(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    time.sleep(_TICK_SECONDS)
    with pytest.raises(FileChangedError, match="file was changed while it was in use"):
        store.digest_local(path, lambda: (path.write_bytes(b"two"), None)[1])
    assert store.digest_local(path).digest == hashlib.sha256(b"two").hexdigest()


def test_only_what_lies_outside_the_store_can_change(store: Store, tmp_path: Path) -> None:
    kept = store.put([b"one"], store.pins())
    check_unchanged(kept.path, kept.fingerprint)
    store.blob(kept.digest, store.pins())  # which marks it as just used
    check_unchanged(kept.path, kept.fingerprint)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    stored = store.digest_local(path)
    check_unchanged(path, stored.fingerprint)
    path.unlink()
    with pytest.raises(FileChangedError):
        check_unchanged(path, stored.fingerprint)
