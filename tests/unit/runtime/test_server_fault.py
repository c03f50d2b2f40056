"""Faults of one server, over a program that stands in for tritonserver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import shared_memory
from runtime.jobs.job_table import State
from runtime.settings import Settings
from runtime.supervisor import server as server_module
from runtime.supervisor.command import Ports
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.server import Server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(server_module, "server_command", lambda *_: ["/bin/sleep", "60"])
    found = Server(Settings(), Ports(1, 2, 3), tmp_path / "job_table-1")
    yield found
    found.kill()


def test_a_server_whose_regions_fill_the_shared_memory_is_replaced_when_it_is_idle(server: Server) -> None:
    assert server.fault() is None
    job = server.job_table.open("", "", 1)
    assert job
    shared_memory.ask_for_new_regions(server.job_table.path)
    assert server.fault() is None
    server.job_table.report(job, "finish", State.DONE)
    assert server.fault() == Fault(Reason.SHARED_MEMORY, "the regions of shared memory have grown and fill /dev/shm")


def test_a_killed_server_leaves_no_region(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "shm")
    shared_memory.FOLDER.mkdir()
    prefix = f"{shared_memory.RESERVED_PREFIX}{tmp_path.name}-job_table-"
    for name in (f"{prefix}1-0a1b", f"{prefix}11-0a1b", f"{shared_memory.RESERVED_PREFIX}0a1b"):
        (shared_memory.FOLDER / name).touch()
    server.kill()
    left = {path.name for path in shared_memory.FOLDER.iterdir()}
    assert left == {f"{prefix}11-0a1b", f"{shared_memory.RESERVED_PREFIX}0a1b"}


@pytest.mark.parametrize(("urgent", "at_least", "at_most"), [(False, 2, 10), (True, 0, 1)])
def test_a_stop_waits_for_the_jobs_unless_it_is_urgent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, urgent: bool, at_least: float, at_most: float
) -> None:
    monkeypatch.setattr(server_module, "server_command", lambda *_: ["/bin/sleep", "60"])
    server = Server(Settings(stop_seconds=2), Ports(1, 2, 3), tmp_path / "job_table-1")
    assert server.job_table.open("", "", 1)
    begun = time.monotonic()
    server.stop(is_urgent=lambda: urgent)
    assert at_least <= time.monotonic() - begun < at_most
    assert server._process.poll() is not None


@pytest.mark.parametrize(("command", "crashed"), [("kill -ABRT $$", True), ("exit 1", False), ("exit 0", False)])
def test_a_crash_is_told_from_an_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, crashed: bool
) -> None:
    monkeypatch.setattr(server_module, "server_command", lambda *_: ["/bin/sh", "-c", command])
    server = Server(Settings(), Ports(1, 2, 3), tmp_path / "job_table-1")
    server._process.wait()
    fault = server.fault()
    assert fault is not None and fault.reason == Reason.SERVER_ENDED
    assert server.has_crashed() is crashed
    server.kill()
