"""Starts the server, restarts it after a fault, and stops it on a signal.

The first Ctrl-C (or SIGTERM) stops the server after it has answered its requests; a second one kills it.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

from runtime.jobs.job_table import STAGES
from runtime.settings import Settings
from runtime.supervisor.command import Ports
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.listen_address import url_host
from runtime.supervisor.server import Server
from runtime.supervisor.status import Status

_LOOK_SECONDS = 0.2
_MAX_FAILED_STARTS = 3


def say(text: str) -> None:
    print(f"lorikeet: {text}", flush=True)


class Supervisor:
    """Keeps one server running until a signal stops it.

    Gives up when `_MAX_FAILED_STARTS` starts fail in a row, or when the first fails and tritonserver did not crash.
    """

    def __init__(self, settings: Settings, ports: Ports, folder: Path, status: Status, status_port: int) -> None:
        """Keeps `status` up to date, which is served on `status_port`."""
        self._settings, self._ports, self._folder = settings, ports, folder
        self._status, self._status_port = status, status_port
        self._server: Server | None = None
        self._signals = 0

    def run(self) -> int:
        """Runs until a signal arrives or the server cannot start. The exit status: 0 after a signal, else 1."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._count_signal)
        failed, generation = 0, 0
        while not self._signals:
            generation += 1
            self._server = Server(self._settings, self._ports, self._folder / f"job_table-{generation}")
            self._status.server = self._server
            fault = self._start(self._server)
            failed = failed + 1 if fault else 0
            fault = fault or self._watch(self._server)
            if fault is None:
                break
            self._status.is_ready = False
            is_wrong_set_up = failed and generation == 1 and not self._server.has_crashed()
            self._server.kill()
            if is_wrong_set_up or failed >= _MAX_FAILED_STARTS:
                say(f"{fault.message}; the supervisor gives up")
                return 1
            say(f"{fault.message}; restarting the server")
            self._status.count_restart(fault)
        if self._server is not None:
            say("stopping")
            self._server.stop(is_urgent=lambda: self._signals > 1)
        return 0

    def _start(self, server: Server) -> Fault | None:
        """Wait until the server is ready or a signal arrives, and return None. Returns the fault if there is one."""
        begun, logged = time.monotonic(), -1
        while not server.is_ready():
            time.sleep(_LOOK_SECONDS)
            if self._signals:
                return None
            if fault := server.fault():
                return fault
            if time.monotonic() - begun > self._settings.start_seconds:
                late = f"the server is not ready after {self._settings.start_seconds} s (LORIKEET_START_SECONDS)"
                return Fault(Reason.START_TIMEOUT, late)
            if (ready := len(server.stages_ready())) != logged:
                say(f"loading, {ready} of {len(STAGES)} stages ready")
                logged = ready
        self._status.is_ready = True
        say(f"ready after {time.monotonic() - begun:.1f} s: {self._addresses()}")
        return None

    def _addresses(self) -> str:
        host = url_host(self._settings.host)
        served = f"grpc://{host}:{self._ports.grpc} http://{host}:{self._ports.http}"
        return f"{served} (metrics http://{host}:{self._ports.metrics}, status http://{host}:{self._status_port})"

    def _watch(self, server: Server) -> Fault | None:
        """Wait for a fault and return it; None when a signal arrives first."""
        while not self._signals:
            if fault := server.fault():
                return fault
            time.sleep(_LOOK_SECONDS)
        return None

    def _count_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Takes no lock: it runs between two instructions of `run`, which may hold that lock."""
        self._signals += 1
        self._status.is_stopping = True
