"""A supervised server as a child process on free ports, for the demo, tests and benchmarks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from typing_extensions import Self

_READY = re.compile(
    r"^lorikeet: ready after ([\d.]+) s: (grpc://\S+) (http://\S+) \(metrics (http://\S+), status (http://\S+)\)$",
    re.MULTILINE,
)
_PREFIX = "lorikeet: "


class ServerFailed(RuntimeError):
    """The server ended or was not ready in time; the message ends with its last output lines."""


class LocalServer:
    """`make serve` as a child process. `settings` are LORIKEET_* variables without the prefix, in lower case.

    `launcher`: a command that runs the command appended to it, without a process between (`nice`, `unshare`).
    `ready_within`, `stop_within`: seconds after which it is given up, or killed.
    As a context manager, it starts the server, waits until it is ready, and stops it with SIGINT at exit.
    """

    def __init__(
        self,
        log: Path,
        settings: Mapping[str, str],
        on_progress: Callable[[str], None] = lambda line: None,
        launcher: Sequence[str] = (),
        ready_within: float = 300,
        stop_within: float = 30,
    ) -> None:
        self._log, self._on_progress, self._launcher = log, on_progress, launcher
        self._ready_within, self._stop_within = ready_within, stop_within
        ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port", "status_port"), "0")
        self._environment = os.environ | {f"LORIKEET_{k.upper()}": v for k, v in {**ports, **settings}.items()}
        self.grpc = self.http = self.metrics = self.status = ""
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                # The server exits with this process, so that a killed test or benchmark leaves no server running.
                [
                    *self._launcher,
                    sys.executable,
                    "-m",
                    "runtime.supervisor.exit_with_parent",
                    "SIGTERM",
                    str(os.getpid()),
                    sys.executable,
                    "-m",
                    "runtime.supervisor",
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self, times: int = 1, timeout: float | None = None) -> None:
        """Wait until the server has been ready for the given time (2: after one restart). Raises ServerFailed."""
        deadline, reported = time.monotonic() + (timeout or self._ready_within), 0
        while True:
            text = self.output()
            lines = [line.removeprefix(_PREFIX) for line in text.splitlines() if line.startswith(_PREFIX)]
            for line in lines[reported:]:
                self._on_progress(line)
            reported = len(lines)
            if len(found := _READY.findall(text)) >= times:
                seconds, self.grpc, self.http, self.metrics, self.status = found[-1]
                self.start_seconds = float(seconds)
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed("the server did not get ready:\n" + "\n".join(text.splitlines()[-20:]))
            time.sleep(0.05)

    def output(self) -> str:
        """The server's output so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> int:
        """Stop the server with SIGINT, and if that takes too long with SIGKILL. Returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=self._stop_within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
