"""`make serve`: runs the server under the supervisor, in the foreground.

The first Ctrl-C (or SIGTERM) stops the server after it has answered its requests; a second one kills it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from runtime.jobs.job_table import STAGES
from runtime.settings import Settings, SettingsError, load_settings
from runtime.supervisor import leftovers
from runtime.supervisor.command import NoTriton, Ports, StagePathError, busy_port, choose_ports
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.listen_address import url_host
from runtime.supervisor.server import Server
from runtime.supervisor.status import Status
from runtime.supervisor.status_server import StatusServer

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
            self._server.stop()
        return 0

    def _start(self, server: Server) -> Fault | None:
        """Wait until the server is ready or a signal arrives, and return None. Returns the fault if there is one."""
        begun, logged = time.monotonic(), -1
        while not server.is_ready():
            if self._stopping.wait(_LOOK_SECONDS):
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
        while not self._stopping.wait(_LOOK_SECONDS):
            if fault := server.fault():
                return fault
        return None

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set() and self._server is not None:
            self._server.kill()
        self._stopping.set()
        self._status.is_stopping = True


def main() -> int:
    try:
        settings = load_settings()
        status = Status()
        with _status_server(settings, status) as status_server:
            ports = choose_ports(settings)
            if busy := busy_port(settings, ports):
                raise _port_in_use(settings, busy, "LORIKEET_HTTP_PORT, LORIKEET_GRPC_PORT or LORIKEET_METRICS_PORT")
            leftovers.sweep()
            with leftovers.own_folder() as folder:
                return Supervisor(settings, ports, folder, status, status_server.port).run()
    except (SettingsError, NoTriton, StagePathError) as error:
        for line in str(error).splitlines():
            print(f"lorikeet: {line}", file=sys.stderr)
        return 2


def _status_server(settings: Settings, status: Status) -> StatusServer:
    try:
        return StatusServer(settings.host, settings.status_port, status)
    except OSError as error:
        raise _port_in_use(settings, settings.status_port, "LORIKEET_STATUS_PORT") from error


def _port_in_use(settings: Settings, port: int, variables: str) -> SettingsError:
    return SettingsError(f"port {port} of {settings.host} is in use: set {variables}")


if __name__ == "__main__":
    sys.exit(main())
