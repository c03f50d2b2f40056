"""The tritonserver that is there, and the command line that it is started with."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from runtime.settings import ROOT, Settings, tools_folder

_NGC = Path("/opt/tritonserver")  # where NVIDIA's image keeps it


class NoTriton(RuntimeError):
    """There is no tritonserver on this machine."""


@dataclass(frozen=True)
class Ports:
    """The ports of one server; none is 0."""

    http: int
    grpc: int
    metrics: int


def choose_ports(settings: Settings) -> Ports:
    """The ports that the settings name, a free one for each 0."""
    held = []
    try:
        chosen = []
        for port in (settings.http_port, settings.grpc_port, settings.metrics_port):
            if port == 0:
                # Held until all are chosen, so that they differ.
                held.append(socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET))
                held[-1].bind((settings.host, 0))
                port = held[-1].getsockname()[1]
            chosen.append(port)
        return Ports(*chosen)
    finally:
        for taken in held:
            taken.close()


def busy_port(settings: Settings, ports: Ports) -> int | None:
    """A port that somebody else listens on, or None: Triton's own message about it is hard to find."""
    for port in (ports.http, ports.grpc, ports.metrics):
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                return port
    return None


def server_command(settings: Settings, ports: Ports, memory_prefix: str) -> list[str]:
    """The command line of tritonserver over this repository's models. Raises NoTriton.

    `memory_prefix` begins the names of the shared memory between Triton and its stages, in /dev/shm.
    """
    program, backends = _find_server()
    options = {
        "model-repository": ROOT / "model_repository",
        "model-control-mode": "none",
        "backend-directory": backends,
        "model-load-thread-count": 8,
        "http-address": settings.host,
        "http-port": ports.http,
        "grpc-address": settings.host,
        "grpc-port": ports.grpc,
        "metrics-address": settings.host,
        "metrics-port": ports.metrics,
        "log-info": "false",
    }
    # Auto-completion would start, import and stop every stage once before its real start.
    backend = {"stub-timeout-seconds": settings.start_seconds, "shm-region-prefix-name": memory_prefix}
    return [
        str(program),
        "--disable-auto-complete-config",
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in backend.items()),
    ]


def _find_server() -> tuple[Path, Path]:
    """(tritonserver, its backends): the tools folder's, else NVIDIA's image's, else the one on PATH."""
    homes = [tools_folder() / "triton", _NGC]
    if found := shutil.which("tritonserver"):
        homes.append(Path(found).resolve().parents[1])
    for home in homes:
        if (home / "bin" / "tritonserver").exists():
            return home / "bin" / "tritonserver", home / "backends"
    raise NoTriton("no tritonserver here: `make setup` installs one, and NVIDIA's image has one")
