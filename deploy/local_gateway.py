"""A gateway as a child process on a free port, for tests and benchmarks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import Self

from deploy.local_server import ServerFailed

_READY = re.compile(r"^lorikeet gateway: ready at ([^\s;]+)", re.MULTILINE)
_START_SECONDS = 60.0


class LocalGateway:
    """`lorikeet gateway` as a child process. `settings` are LORIKEET_GATEWAY_* variables, in lower case without prefix.

    As a context manager, it starts the gateway, waits until it is ready, and stops it with SIGTERM at exit. `start`
    after `stop` or a kill starts it again over the same data, on the same port.
    """

    def __init__(self, log: Path, settings: Mapping[str, str]) -> None:
        self._log = log
        self._settings = {"port": "0", **settings}
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerFailed."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        variables = {f"LORIKEET_GATEWAY_{name.upper()}": value for name, value in self._settings.items()}
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "runtime.supervisor.exit_with_parent", "SIGKILL", str(os.getpid())),
                    *(sys.executable, "-m", "lorikeet", "gateway"),
                ],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.url = self._wait_ready()
        self._settings["port"] = self.url.rpartition(":")[2]

    def output(self) -> str:
        """The gateway's output since its last start."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Stop it with SIGTERM, after 30 s with SIGKILL. Returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def _wait_ready(self) -> str:
        deadline = time.monotonic() + _START_SECONDS
        while (found := _READY.search(self.output())) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"the gateway did not get ready:\n{self.output()}")
            time.sleep(0.05)
        return found[1]
