"""`make serve`: runs the server under the supervisor, in the foreground.

The first Ctrl-C (or SIGTERM) stops the server after it has answered its requests; a second one kills it.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

from runtime.jobs.job_table import STAGES
from runtime.settings import Settings, SettingsError, load_settings
from runtime.supervisor import leftovers
from runtime.supervisor.command import NoTriton, Ports, busy_port, choose_ports
from runtime.supervisor.server import Server

_LOOK_SECONDS = 0.2
_MAX_FAILED_STARTS = 3


def say(text: str) -> None:
    print(f"lorikeet: {text}", flush=True)


class Supervisor:
    """Keeps one server running until a signal stops it.

    Gives up when the first start fails, or when `_MAX_FAILED_STARTS` starts fail in a row.
    """

    def __init__(self, settings: Settings, ports: Ports, folder: Path) -> None:
        self._settings, self._ports, self._folder = settings, ports, folder
        self._stopping = threading.Event()
        self._server: Server | None = None

    def run(self) -> int:
        """Runs until a signal arrives or the server cannot start. The exit status: 0 after a signal, else 1."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        failed, generation = 0, 0
        while not self._stopping.is_set():
            generation += 1
            self._server = Server(self._settings, self._ports, self._folder / f"job_table-{generation}")
            fault = self._start(self._server)
            failed = failed + 1 if fault else 0
            fault = fault or self._watch(self._server)
            if fault is None:
                break
            self._server.kill()
            if failed and (generation == 1 or failed >= _MAX_FAILED_STARTS):
                say(f"{fault}; the supervisor gives up")
                return 1
            say(f"{fault}; restarting the server")
        if self._server is not None:
            say("stopping")
            self._server.stop()
        return 0

    def _start(self, server: Server) -> str | None:
        """Wait until the server is ready or a signal arrives, and return None. Returns the fault if there is one."""
        begun, logged = time.monotonic(), -1
        while not server.is_ready():
            if self._stopping.wait(_LOOK_SECONDS):
                return None
            if fault := server.fault():
                return fault
            if time.monotonic() - begun > self._settings.start_seconds:
                return f"the server is not ready after {self._settings.start_seconds} s (LORIKEET_START_SECONDS)"
            if (ready := len(server.stages_ready())) != logged:
                say(f"loading, {ready} of {len(STAGES)} stages ready")
                logged = ready
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        seconds = time.monotonic() - begun
        say(f"ready after {seconds:.1f} s: grpc://{host}:{self._ports.grpc} http://{host}:{self._ports.http}")
        return None

    def _watch(self, server: Server) -> str | None:
        """Wait for a fault and return it; None when a signal arrives first."""
        while not self._stopping.wait(_LOOK_SECONDS):
            if fault := server.fault():
                return fault
        return None

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set() and self._server is not None:
            self._server.kill()
        self._stopping.set()


def main() -> int:
    try:
        settings = load_settings()
        ports = choose_ports(settings)
        if busy := busy_port(settings, ports):
            raise SettingsError(
                f"port {busy} of {settings.host} is in use: "
                "set LORIKEET_HTTP_PORT, LORIKEET_GRPC_PORT or LORIKEET_METRICS_PORT"
            )
        leftovers.sweep()
        with tempfile.TemporaryDirectory(prefix=f"{leftovers.PREFIX}{os.getpid()}-") as folder:
            return Supervisor(settings, ports, Path(folder)).run()
    except (SettingsError, NoTriton) as error:
        for line in str(error).splitlines():
            print(f"lorikeet: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
