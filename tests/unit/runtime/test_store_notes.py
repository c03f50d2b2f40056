"""What the store remembers: facts under a key, and the digests of local files."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.files import store_index
from runtime.files.store import Store
from runtime.files.stored_file import FileChangedError, check_unchanged
from tests.unit.runtime.faults import raising

_TICK_SECONDS = 0.05  # file systems' clocks tick every few milliseconds


@pytest.mark.parametrize("note", [b"[]", b"5", b'{"a": 5}', b"\xff", b""])
def test_a_note_of_another_form_is_no_note(store: Store, tmp_path: Path, note: bytes) -> None:
    store.remember("url:a", {})
    (path,) = (tmp_path / "store" / "index").iterdir()
    path.write_bytes(note)
    assert store.recall("url:a") is None


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


def _notes(folder: Path) -> list[Path]:
    return list((folder / "index").iterdir())


def _age(folder: Path, key: str, seconds: float) -> None:
    note = folder / "index" / (hashlib.sha256(key.encode()).hexdigest() + ".json")
    os.utime(note, (time.time() - seconds,) * 2)


def test_notes_are_bounded(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "_MAX_NOTES", 16)
    for number in range(100):
        for _ in range(2):  # a note that is written again is no new one
            store.remember(f"url:{number}", {"number": str(number)})
        assert (
            len(_notes(tmp_path / "store")) == number + 1 if number < 16 else 14 < len(_notes(tmp_path / "store")) <= 16
        )
        assert store.recall(f"url:{number}") == {"number": str(number)}


def test_the_least_recently_used_notes_go_first(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "_MAX_NOTES", 16)
    for number in range(16):
        store.remember(f"url:{number}", {})
        _age(tmp_path / "store", f"url:{number}", 1000 - number)
    assert store.recall("url:0") == {}
    store.remember("url:new", {})
    left = [number for number in range(16) if store.recall(f"url:{number}") is not None]
    assert left == [0, *range(3, 16)]
    assert store.recall("url:new") == {}


def test_a_store_of_many_notes_is_cut_to_the_bound(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older server may have left it."""
    for number in range(100):
        store.remember(f"url:{number}", {})
    monkeypatch.setattr(store_index, "_MAX_NOTES", 16)
    again = Store(tmp_path / "store", 100)
    again.remember("url:new", {"a": "b"})
    assert len(_notes(tmp_path / "store")) == 15
    assert again.recall("url:new") == {"a": "b"}


@pytest.mark.parametrize("function", ["write_text", "replace"])
def test_a_note_that_cannot_be_written_leaves_the_one_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    store.remember("url:a", {"etag": "1"})
    with monkeypatch.context() as patch:
        patch.setattr(Path, function, raising(OSError(5, "Input/output error")))
        store.remember("url:a", {"etag": "2"})
    assert store.recall("url:a") == {"etag": "1"}
    store.remember("url:a", {"etag": "3"})
    assert store.recall("url:a") == {"etag": "3"}


_REMEMBER = """
import itertools, sys
from pathlib import Path
from runtime.files import store_index
from runtime.files.store import Store
store_index._MAX_NOTES = 16
store = Store(Path(sys.argv[1]), 0)
for number in itertools.count():
    key, value = f"url:{number % 40}", str(number) * 500
    store.remember(key, {"key": key, "number": value, "again": value})
    if number == 0:
        print(flush=True)
"""


def test_a_process_that_is_killed_leaves_no_wrong_note(tmp_path: Path) -> None:
    for turn in range(5):
        with subprocess.Popen([sys.executable, "-c", _REMEMBER, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + 0.01 * turn)
            process.send_signal(signal.SIGKILL)
        store = Store(tmp_path, 0)
        assert all(store_index.NOTE.fullmatch(note.name) for note in _notes(tmp_path))
        found = {key: facts for number in range(40) if (facts := store.recall(key := f"url:{number}"))}
        assert len(found) == len(_notes(tmp_path)) in range(1, 17)
        assert all(facts["key"] == key and facts["number"] == facts["again"] for key, facts in found.items())


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
