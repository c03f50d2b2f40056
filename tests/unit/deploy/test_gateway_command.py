"""`make gateway`: both processes run together, and none is left behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runtime.settings import ROOT

# A Triton that only sleeps, and a gateway that writes its environment and what it was told at the end.
STAND_IN = """
import subprocess, sys
from pathlib import Path
from deploy import gateway

class Triton:
    grpc, metrics, status = "grpc://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"
    def start(self):
        self.process = subprocess.Popen(["sleep", sys.argv[2]], start_new_session=True)
        Path("triton").write_text(str(self.process.pid))
    def wait_ready(self):
        pass
    def stop(self):
        Path("stopped").write_text("after the gateway" if Path("gateway_end").exists() else "before the gateway")
        self.process.kill()
        return self.process.wait()

GATEWAY = '''
import json, os, signal, sys, time
from pathlib import Path
def end(*_):
    Path("gateway_end").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
urls = {name: value for name, value in os.environ.items() if name.startswith("LORIKEET_GATEWAY_")}
Path("part").write_text(json.dumps({"pid": os.getpid()} | urls))
Path("part").rename("gateway")
time.sleep(float(sys.argv[1]))
'''
sys.exit(gateway.run(Triton(), [sys.executable, "-c", GATEWAY, sys.argv[1]]))
"""


class Running:
    """The command in a folder of its own. `gateway` and `triton`: seconds until each ends by itself."""

    def __init__(self, folder: Path, gateway: float, triton: float) -> None:
        self._folder = folder
        unset = {name: value for name, value in os.environ.items() if not name.startswith("LORIKEET_GATEWAY_")}
        self._command = subprocess.Popen(
            [sys.executable, "-c", STAND_IN, str(gateway), str(triton)],
            cwd=folder,
            env={**unset, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def gateway(self) -> dict[str, Any]:
        """What the gateway wrote once it ran."""
        deadline = time.monotonic() + 20
        while not (self._folder / "gateway").exists():
            assert time.monotonic() < deadline and self._command.poll() is None
            time.sleep(0.02)
        found: dict[str, Any] = json.loads((self._folder / "gateway").read_text())
        return found

    def signal(self, number: int) -> None:
        self._command.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Exit status and output; no process of both is left."""
        output, _ = self._command.communicate(timeout=20)
        for pid in (self.gateway_pid(), int((self._folder / "triton").read_text())):
            assert not Path(f"/proc/{pid}").exists()
        assert (self._folder / "stopped").exists()
        return self._command.returncode, output

    def gateway_pid(self) -> int:
        return int(json.loads((self._folder / "gateway").read_text())["pid"])

    def read(self, name: str) -> str:
        return (self._folder / name).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_gateway_and_then_triton(tmp_path: Path, number: int) -> None:
    running = Running(tmp_path, 60, 60)
    started = running.gateway()
    running.signal(number)
    status, output = running.end()
    assert started | {"pid": 0} == {
        "pid": 0,
        "LORIKEET_GATEWAY_SERVERS": "grpc://127.0.0.1:1",
        "LORIKEET_GATEWAY_STATUS_URLS": "http://127.0.0.1:3",
        "LORIKEET_GATEWAY_METRICS_URLS": "http://127.0.0.1:2",
    }
    assert (status, output) == (0, "lorikeet: stopping\n")
    assert running.read("stopped") == "after the gateway"


def test_impatience_leaves_no_process(tmp_path: Path) -> None:
    running = Running(tmp_path, 60, 60)
    running.gateway()
    for _ in range(5):
        running.signal(signal.SIGINT)
        time.sleep(0.01)
    assert running.end()[0] == 0


def test_a_gateway_that_ends_stops_triton(tmp_path: Path) -> None:
    status, output = Running(tmp_path, 0.2, 60).end()
    assert (status, output) == (1, "lorikeet: the gateway ended with status 0\n")


def test_a_supervisor_that_ends_stops_the_gateway(tmp_path: Path) -> None:
    running = Running(tmp_path, 60, 1)
    running.gateway()
    status, output = running.end()
    assert (status, output) == (1, "lorikeet: the supervisor of Triton ended with status 0\n")
    assert (tmp_path / "gateway_end").exists()


def _main(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.gateway"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_servers_of_the_user_are_refused() -> None:
    done = _main({"LORIKEET_GATEWAY_SERVERS": "grpc://elsewhere:8001"})
    assert done.returncode == 2 and "run `lorikeet gateway` for those servers" in done.stderr


def test_a_wrong_setting_is_named() -> None:
    done = _main({"LORIKEET_PRECISION": "float8"})
    assert done.returncode == 1
    assert "LORIKEET_PRECISION" in done.stderr and "Traceback" not in done.stderr
