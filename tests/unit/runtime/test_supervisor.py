"""The supervisor's loop, around servers that a test scripts: what it counts and says."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.jobs.job_table import JobTable
from runtime.settings import Settings
from runtime.supervisor import __main__ as supervisor_main
from runtime.supervisor import supervisor as supervisor_module
from runtime.supervisor.command import Ports
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.status import Status
from runtime.supervisor.supervisor import Supervisor

KILLED = Fault(Reason.STAGE_ENDED, "the process of the stage finish has ended", "finish")


class ScriptedServer:
    """Each server of a script is ready at once, and has its fault when the supervisor looks; None: a signal arrives."""

    script: list[Fault | None]
    status: Status
    seen: list[dict[str, Any]]
    urgent: list[bool]

    def __init__(self, settings: Settings, ports: Ports, job_table_file: Path) -> None:
        self.job_table = JobTable(job_table_file)
        self._found = self.script.pop(0)
        self._ready = False

    def is_ready(self) -> bool:
        self._ready = True
        return True

    def stages_ready(self) -> list[str]:
        return []

    def fault(self) -> Fault | None:
        if self._ready and self._found is None and not self.status.is_stopping:
            os.kill(os.getpid(), signal.SIGINT)
        return self._found if self._ready else None

    def kill(self) -> None:
        self.seen.append(self.status.health())

    def stop(self, is_urgent: Callable[[], bool]) -> None:
        """A second signal arrives while the server stops."""
        self.seen.append(self.status.health())
        before = is_urgent()
        os.kill(os.getpid(), signal.SIGINT)
        self.urgent.extend([before, is_urgent()])


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedServer]:
    monkeypatch.setattr(supervisor_module, "Server", ScriptedServer)
    monkeypatch.setattr(supervisor_module, "_LOOK_SECONDS", 0.01)
    ScriptedServer.status, ScriptedServer.seen, ScriptedServer.urgent = Status(), [], []
    return ScriptedServer


def test_restarts_are_counted_and_the_ready_line_names_all_addresses(
    tmp_path: Path, scripted: type[ScriptedServer], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.script = [KILLED, KILLED, None]
    assert Supervisor(Settings(), Ports(1, 2, 3), tmp_path, scripted.status, 4).run() == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(
        "grpc://127.0.0.1:2 http://127.0.0.1:1 (metrics http://127.0.0.1:3, status http://127.0.0.1:4)"
    )
    assert said[1] == "lorikeet: the process of the stage finish has ended; restarting the server"
    assert [(seen["status"], seen["restarts"]) for seen in scripted.seen] == [
        ("sick", 0),
        ("sick", 1),
        ("stopping", 2),
    ]
    assert scripted.seen[0]["sick"]["stage"] == "finish"
    assert 'lorikeet_restarts_total{reason="stage_ended"} 2.0' in scripted.status.metrics()


def test_a_second_signal_makes_the_stop_urgent(tmp_path: Path, scripted: type[ScriptedServer]) -> None:
    scripted.script = [None]
    assert Supervisor(Settings(), Ports(1, 2, 3), tmp_path, scripted.status, 4).run() == 0
    assert scripted.urgent == [False, True]


def test_a_status_port_in_use_is_an_error_at_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("LORIKEET_STATUS_PORT", str(port))
        assert supervisor_main.main() == 2
    assert capsys.readouterr().err == (f"lorikeet: port {port} of 127.0.0.1 is in use: set LORIKEET_STATUS_PORT\n")
