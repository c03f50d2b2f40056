"""`make gateway`: Triton under its supervisor, and the gateway in front of it, until Ctrl-C.

Ctrl-C stops the gateway first, so that it takes no more requests, and then Triton. When one of both ends by itself,
the other is stopped too. Requests that were accepted continue at the next start.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from deploy.local_server import LocalServer, ServerFailed
from runtime.settings import Settings, SettingsError, load_settings

SERVERS = "LORIKEET_GATEWAY_SERVERS"
LOG = Path("out") / "gateway" / "triton.log"
_GRACE_SECONDS = 20.0  # of the gateway
_LOOK_SECONDS = 0.2
_MARGIN_SECONDS = 30.0
_PORTS = ("http_port", "grpc_port", "metrics_port", "status_port")
# Ctrl-C reaches all processes of the terminal's group. In sessions of their own, both are stopped in order instead.
_OWN_SESSION = ("setsid",)


class Triton(Protocol):
    """A supervised Triton server, as `LocalServer` is one."""

    process: subprocess.Popen[bytes]
    grpc: str
    metrics: str
    status: str

    def start(self) -> None: ...

    def wait_ready(self) -> None: ...

    def stop(self) -> int: ...


class Stopped(BaseException):
    """A signal asks to stop. Not an Exception, as KeyboardInterrupt is none."""


def main() -> int:
    if SERVERS in os.environ:
        own = "make gateway starts a server of its own: unset it, or run `lorikeet gateway` for those servers"
        print(f"lorikeet: {SERVERS} is set, but {own}", file=sys.stderr)
        return 2
    try:
        settings = load_settings()
        triton = LocalServer(
            LOG,
            _ports(settings),
            say,
            _OWN_SESSION,
            # The supervisor keeps both limits itself.
            ready_within=settings.start_seconds + _MARGIN_SECONDS,
            stop_within=settings.stop_seconds + _MARGIN_SECONDS,
        )
        say(f"Triton's output is in {LOG}")
        return run(triton, [str(Path(sys.executable).with_name("lorikeet")), "gateway"])
    except (SettingsError, ServerFailed, OSError) as error:
        print(f"lorikeet: {error}", file=sys.stderr)
        return 1


def run(triton: Triton, gateway_command: Sequence[str]) -> int:
    """Run both until a signal, which means 0, or until one of them ends, which means 1."""
    gateway: subprocess.Popen[bytes] | None = None
    _on_signals(_stop)
    triton.start()
    try:
        triton.wait_ready()
        gateway = _start_gateway(gateway_command, _addresses(triton))
        while True:
            if gateway.poll() is not None:
                say(f"the gateway ended with status {gateway.returncode}")
                return 1
            if triton.process.poll() is not None:
                say(f"the supervisor of Triton ended with status {triton.process.returncode}")
                return 1
            time.sleep(_LOOK_SECONDS)
    except Stopped:
        say("stopping")
        return 0
    finally:
        _on_signals(signal.SIG_IGN)
        if gateway is not None:
            _stop_gateway(gateway)
        triton.stop()


def say(line: str) -> None:
    print(f"lorikeet: {line}", flush=True)


def _ports(settings: Settings) -> dict[str, str]:
    """The ports of the environment, or their defaults: `LocalServer` would choose free ones."""
    return {name: str(getattr(settings, name)) for name in _PORTS}


def _addresses(triton: Triton) -> dict[str, str]:
    return {
        SERVERS: triton.grpc,
        "LORIKEET_GATEWAY_STATUS_URLS": triton.status,
        "LORIKEET_GATEWAY_METRICS_URLS": triton.metrics,
    }


def _start_gateway(command: Sequence[str], addresses: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The gateway, whose output is this process's. It ends with this process."""
    program = [sys.executable, "-m", "runtime.supervisor.exit_with_parent", "SIGTERM", str(os.getpid()), *command]
    return subprocess.Popen(program, env={**os.environ, **addresses}, stdin=subprocess.DEVNULL, start_new_session=True)


def _stop_gateway(gateway: subprocess.Popen[bytes]) -> None:
    gateway.terminate()
    try:
        gateway.wait(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        gateway.kill()
        gateway.wait()


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    _on_signals(signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stop, and leave a process running
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
