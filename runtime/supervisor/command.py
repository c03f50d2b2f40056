"""Finds tritonserver and its ports, and builds its command line."""

from __future__ import annotations

import secrets
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime.settings import ROOT, Settings, tools_folder
from runtime.supervisor.listen_address import address_family

_NGC = Path("/opt/tritonserver")  # where NVIDIA's container image has Triton
_PROGRAM = Path("bin", "tritonserver")

# These groups of Triton's APIs read memory or change the server; no client of Lorikeet needs them. Health, metadata,
# model configuration, statistics and inference stay open.
_RESTRICTED_APIS = "shared-memory,model-repository,trace,logging"
_SECRET_HEADER = "lorikeet-secret"
_MOVE = "move it. The folders of other settings, such as LORIKEET_STORE, may have any name"

# Triton limits gRPC messages to 2 GiB; some versions limit HTTP requests to 64 MiB, which FILES with a LoRA exceeds.
_MAX_HTTP_BYTES = (1 << 31) - 1
_LIMITS_HTTP = (2, 59)  # versions from this one on know the option http-max-input-size


class NoTriton(RuntimeError):
    """This machine has no tritonserver."""


class StagePathError(RuntimeError):
    """Triton cannot start stages from a path. The message names the path."""


@dataclass(frozen=True)
class Ports:
    """The ports of one server, each from 1 to 65535."""

    http: int
    grpc: int
    metrics: int


def choose_ports(settings: Settings) -> Ports:
    """The ports of the settings; a free port replaces each 0."""
    held = []
    try:
        chosen = []
        for port in (settings.http_port, settings.grpc_port, settings.metrics_port):
            if port == 0:
                # The socket stays open until all ports are chosen: the system gives each socket another port.
                held.append(socket.socket(address_family(settings.host)))
                held[-1].bind((settings.host, 0))
                port = held[-1].getsockname()[1]
            chosen.append(port)
        return Ports(*chosen)
    finally:
        for taken in held:
            taken.close()


def busy_port(settings: Settings, ports: Ports) -> int | None:
    """A port that another process uses, or None. The supervisor checks it first: Triton's message is hard to find."""
    for port in (ports.http, ports.grpc, ports.metrics):
        with socket.socket(address_family(settings.host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError:
                return port
    return None


def server_command(settings: Settings, ports: Ports, region_prefix: str) -> list[str]:
    """The command line that starts tritonserver with this repository's models. Raises NoTriton and StagePathError.

    `region_prefix` begins the names of the regions in /dev/shm that Triton and its stages share.
    """
    home = _find_server()
    _check_paths(home / "backends")
    options: dict[str, object] = {
        "model-repository": ROOT / "model_repository",
        "model-control-mode": "none",
        "backend-directory": home / "backends",
        "model-load-thread-count": 8,
        "http-address": settings.host,
        "http-port": ports.http,
        "grpc-address": settings.host,
        "grpc-port": ports.grpc,
        "metrics-address": settings.host,
        "metrics-port": ports.metrics,
        "log-info": "false",
        # No client has the secret, so Triton refuses every call of these APIs.
        "http-restricted-api": (restricted := f"{_RESTRICTED_APIS}:{_SECRET_HEADER}={secrets.token_hex(16)}"),
        "grpc-restricted-protocol": restricted,
    }
    if _version(home) >= _LIMITS_HTTP:
        options["http-max-input-size"] = _MAX_HTTP_BYTES
    # `--disable-auto-complete-config`: auto-completion would start and stop each stage once before its real start.
    backend = {"stub-timeout-seconds": settings.start_seconds, "shm-region-prefix-name": region_prefix}
    return [
        str(home / _PROGRAM),
        "--disable-auto-complete-config",
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--backend-config=python,{name}={value}" for name, value in backend.items()),
    ]


def _check_paths(backends: Path) -> None:
    """Raises StagePathError for paths from which Triton cannot start a stage.

    Its Python reads lists of packages (.pth) as ASCII. It starts that Python through a shell, without quotes.
    """
    for what, path in (("the repository", ROOT), ("the Python environment", Path(sys.prefix))):
        if not str(path).isascii():
            raise StagePathError(
                f"{what} is in {path}: Triton's Python imports packages from ASCII paths only; {_MOVE}"
            )
    for what, path in (("the repository", ROOT), ("Triton", backends)):
        text = str(path).encode("ascii", "ignore").decode()  # a shell takes other characters as they are
        if shlex.quote(text) != text:
            raise StagePathError(
                f"{what} is in {path}: Triton starts no stage from a path with spaces or quotes; {_MOVE}"
            )


def _find_server() -> Path:
    """Triton's folder: of the tools, else of NVIDIA's image, else of PATH."""
    homes = [tools_folder() / "triton", _NGC]
    if found := shutil.which("tritonserver"):
        homes.append(Path(found).resolve().parents[1])
    for home in homes:
        if (home / _PROGRAM).exists():
            return home
    raise NoTriton("found no tritonserver: run `make setup` to install it, or use NVIDIA's image")


def _version(home: Path) -> tuple[int, ...]:
    """Triton's version. NVIDIA's images have it in a file; () where there is none, as in the nvidia-pytriton wheel."""
    try:
        return tuple(map(int, (home / "TRITON_VERSION").read_text().strip().split(".")[:2]))
    except (OSError, ValueError):
        return ()
