"""`make serve`: runs the server under the supervisor, in the foreground."""

from __future__ import annotations

import sys

from runtime.settings import Settings, SettingsError, load_settings
from runtime.supervisor import leftovers
from runtime.supervisor.command import NoTriton, StagePathError, busy_port, choose_ports
from runtime.supervisor.status import Status
from runtime.supervisor.status_server import StatusServer
from runtime.supervisor.supervisor import Supervisor


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
