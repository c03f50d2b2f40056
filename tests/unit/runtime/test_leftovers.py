"""What killed supervisors have left is removed; what a living one owns stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import shared_memory
from runtime.supervisor import leftovers
from runtime.supervisor.leftovers import own_folder, region_prefix, sweep

SUPERVISOR = """
import sys, tempfile
from pathlib import Path
from runtime import shared_memory
from runtime.supervisor import leftovers
shared_memory.FOLDER, tempfile.tempdir = Path(sys.argv[1]), sys.argv[2]
with leftovers.own_folder() as folder:
    Path(folder, "job_table-1").touch()
    (shared_memory.FOLDER / f"{leftovers.region_prefix(folder, 'job_table-1')}0a1b").touch()
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for /dev/shm."""
    found = tmp_path / "shm"
    found.mkdir()
    monkeypatch.setattr(shared_memory, "FOLDER", found)
    return found


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "tmp"
    found.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    return found


@pytest.fixture
def start(memory: Path, temporary: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], str]]]:
    """Starts a supervisor of another process: the process, and its folder's name."""
    started = []

    def run() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(memory), str(temporary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        return process, process.stdout.readline().strip()

    yield run
    for process in started:
        process.communicate("")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_supervisor_that_ends_leaves_nothing(memory: Path, temporary: Path) -> None:
    with own_folder() as folder:
        assert names(temporary) == {folder.name}
        assert folder.stat().st_mode & 0o777 == 0o700
    assert names(memory) == names(temporary) == set()


def test_what_a_killed_supervisor_has_left_is_removed(
    memory: Path, temporary: Path, start: Callable[[], tuple[subprocess.Popen[str], str]]
) -> None:
    process, folder = start()
    assert names(temporary) == {folder}
    assert len(names(memory)) == 2
    sweep()
    assert len(names(memory)) == 2 and names(temporary) == {folder}
    process.send_signal(signal.SIGKILL)
    process.wait()
    sweep()
    assert names(memory) == names(temporary) == set()


def test_a_living_supervisor_of_another_container_keeps_its_regions(
    memory: Path,
    temporary: Path,
    start: Callable[[], tuple[subprocess.Popen[str], str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Containers that share /dev/shm do not see each other's processes, and may have equal process ids."""
    _, folder = start()
    for alive in (False, True):
        monkeypatch.setattr(leftovers, "is_alive", lambda pid, alive=alive: alive)
        sweep()
        assert names(temporary) == {folder} and len(names(memory)) == 2


def test_an_earlier_supervisor_with_this_process_id_is_swept(memory: Path, temporary: Path) -> None:
    """A restarted container's supervisor has the process id of the one before."""
    stem = f"lorikeet-{os.getpid()}-abcdefgh"
    (temporary / stem).mkdir()
    (memory / f"{stem}.owner").touch()
    (memory / f"{region_prefix(Path(stem), 'job_table-1')}0a1b").touch()
    with own_folder() as folder:
        sweep()
        assert names(temporary) == {folder.name}
        assert names(memory) == {f"{folder.name}.owner"}


def test_what_belongs_to_others_stays(memory: Path, temporary: Path) -> None:
    """Regions of another Triton with the default prefix, and folders with names that begin alike."""
    others = {
        memory: {"triton_python_backend_shm_region_0a1b-2c3d", "lorikeet-notes.owner", "sem.mp-abc"},
        temporary: {"lorikeet-my-project", "lorikeet-4194305-thesis-of-mine", "lorikeet-0.job_table"},
    }
    for folder, entries in others.items():
        for name in entries:
            (folder / name).mkdir()
    sweep()
    assert {folder: names(folder) for folder in others} == others


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_no_client_can_register_a_region(slashes: str) -> None:
    """The rule of Triton 25.07 (2.59.1) and 25.08 (which strips slashes), src/common.cc, `ValidateSharedMemoryKey`."""
    key = slashes + region_prefix(Path("/tmp/lorikeet-7-abcdefgh"), "job_table-1") + "0a1b"
    assert key.lstrip("/").startswith("triton_python_backend_shm_region_")
