"""The store: files by their SHA-256, whole or absent, within a budget that pinned files may exceed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.files.store import Store
from runtime.files.stored_file import file_fingerprint
from tests.unit.runtime.store_files import age, descriptors, put, stored_names


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
    assert stored_names(tmp_path / "store") == {hashlib.sha256(b"abc").hexdigest()}


def test_a_file_is_absent_until_it_is_whole(store: Store, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        assert all(name.startswith(".") for name in stored_names(tmp_path / "store"))
        yield b"c"

    store.put(chunks(), store.pins())


def test_what_was_put_is_found_again_later(store: Store, tmp_path: Path) -> None:
    stored = store.put([b"abc"], store.pins(), ".safetensors")
    assert Store(tmp_path / "store", 100).blob(stored.digest, store.pins(), ".safetensors") == stored
    assert store.blob(hashlib.sha256(b"other").hexdigest(), store.pins()) is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=30)
    old, used, new = (put(store, letter * 10) for letter in (b"a", b"b", b"c"))
    for seconds, digest in ((30, used), (20, old), (10, new)):
        age(store, tmp_path, digest, seconds)
    pins = store.pins()
    assert store.blob(used, pins) is not None
    pins.release()
    latest = put(store, b"d" * 10)
    assert old not in stored_names(tmp_path)
    assert stored_names(tmp_path) == {used, new, latest}


def test_a_file_that_is_used_again_at_once_is_not_written(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"abc")
    path = tmp_path / "store" / "blobs" / digest
    before = file_fingerprint(path)
    put(store, b"abc")
    assert store.blob(digest, store.pins())
    assert file_fingerprint(path) == before
    for seconds in (100, -100):  # a clock that was set back makes a time of the future
        age(store, tmp_path / "store", digest, seconds)
        assert store.blob(digest, store.pins())
        assert abs(path.stat().st_mtime - time.time()) < 10


def test_bytes_and_evictions_are_known(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=25)
    sizes = []
    for letter in (b"a", b"b", b"c"):
        digest = put(store, letter * 10)
        sizes.append(store.nbytes)
        age(store, tmp_path, digest, 100)
    assert (sizes, store.evictions) == ([10, 20, 20], 1)
    (tmp_path / "blobs" / ".part-x").write_bytes(b"incomplete")
    assert store.nbytes == 20


def test_the_size_of_a_settled_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, budget=100)
    put(store, b"abc")
    long_ago = time.time() - 100
    os.utime(tmp_path / "blobs", (long_ago, long_ago))
    assert store.nbytes == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", _unexpected)
        assert store.nbytes == 3
    put(store, b"de")
    assert store.nbytes == 5


def _unexpected(*_: object) -> None:
    raise AssertionError("the folder was read again")


def test_a_pinned_file_stays(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=10)
    pins = store.pins()
    kept = store.put([b"a" * 10], pins).digest
    age(store, tmp_path, kept, 100)
    gone = put(store, b"b" * 10)
    assert kept in stored_names(tmp_path)
    pins.release()
    last = put(store, b"c" * 10)
    assert kept not in stored_names(tmp_path)
    assert stored_names(tmp_path) <= {gone, last}


def test_a_file_that_two_jobs_pin_stays_until_both_let_go(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=0)
    first, second = store.pins(), store.pins()
    digest = store.put([b"abc"], first).digest
    store.put([b"abc"], second)
    first.release()
    first.release()  # a second time is no second pin
    put(store, b"x")
    assert digest in stored_names(tmp_path)
    second.release()
    put(store, b"y")
    assert digest not in stored_names(tmp_path)


def test_a_file_larger_than_the_budget_serves_the_job_that_needs_it(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=5)
    stored = store.put([b"a" * 10], store.pins())
    assert stored.path.read_bytes() == b"a" * 10


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
        put(store, b"x")
        assert digest in stored_names(tmp_path)
        other.kill()
    put(store, b"y")
    assert digest not in stored_names(tmp_path)


def test_what_is_put_again_is_the_very_same_file(store: Store) -> None:
    """Its pins are locks on it."""
    first = store.put([b"abc"], store.pins()).path.stat().st_ino
    assert store.put([b"abc"], store.pins()).path.stat().st_ino == first


def test_pins_that_nobody_holds_any_more_are_none(tmp_path: Path) -> None:
    store = Store(tmp_path, budget=0)
    digest = store.put([b"abc"], store.pins()).digest
    put(store, b"x")
    assert digest not in stored_names(tmp_path)


def test_a_file_has_one_descriptor_however_many_pin_it(store: Store, tmp_path: Path) -> None:
    before = descriptors()
    jobs = [store.pins() for _ in range(20)]
    for pins in jobs:
        for content in (b"a", b"b", b"c"):
            digest = store.put([content], pins).digest
            assert store.blob(digest, pins)
    assert descriptors() == before + 3
    for pins in jobs[:19]:
        pins.release()
    assert descriptors() == before + 3
    jobs[19].release()
    assert descriptors() == before


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
    assert stored_names(tmp_path) == set(_DIGESTS)


def _check_whole(folder: Path) -> None:
    found = {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}
    assert found.items() <= _DIGESTS.items()
    assert found
