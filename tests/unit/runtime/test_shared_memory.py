"""/dev/shm and the regions of the stages in it, over a folder that stands in for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import shared_memory
from runtime.shared_memory import REGION_BYTES, RESERVED_PREFIX, has_space, measure


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)


@pytest.fixture
def stub() -> Iterator[subprocess.Popen[bytes]]:
    """A process that names a region among its arguments, as the Python backend's stubs do."""
    arguments = ["model.py", f"{RESERVED_PREFIX}lorikeet-7", "1048576"]
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "print(flush=True); input()", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()  # for a moment after it was started, a process has no arguments
    yield process
    process.communicate(b"")


def test_a_region_has_the_size_of_its_file(tmp_path: Path, stub: subprocess.Popen[bytes]) -> None:
    (tmp_path / f"{RESERVED_PREFIX}lorikeet-7").write_bytes(bytes(3 * REGION_BYTES))
    found = measure({"finish": stub.pid})
    assert found.regions == {"finish": 3 * REGION_BYTES}
    assert found.total >= found.free > 0
    assert found.grown == 2 * REGION_BYTES


def test_a_region_that_is_not_found_counts_as_new(stub: subprocess.Popen[bytes]) -> None:
    assert measure({"finish": stub.pid, "jobs": 1 << 22}).regions == {"finish": REGION_BYTES, "jobs": REGION_BYTES}


def test_prepare_asks_for_new_regions_of_its_own_server(tmp_path: Path) -> None:
    shared_memory.ask_for_new_regions(tmp_path / "job_table-1")
    assert shared_memory.needs_new_regions(tmp_path / "job_table-1")
    assert not shared_memory.needs_new_regions(tmp_path / "job_table-2")


def test_an_answer_has_space_in_a_region_that_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 16384, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    monkeypatch.setattr(shared_memory, "_region_bytes", lambda pid: {os.getpid(): 5 * REGION_BYTES}[pid])
    assert has_space(4 * REGION_BYTES)
    assert not has_space(5 * REGION_BYTES)


def test_an_answer_has_space_in_dev_shm() -> None:
    assert has_space(8 * REGION_BYTES)
