"""Starting and stopping: Ctrl-C under load, wrong settings, a killed supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.local_server import LocalServer
from lorikeet import Client
from tests.journeys.test_killed import children, ends, long_request

STOP_SECONDS = 10


def test_ctrl_c_under_load_ends_everything(server: LocalServer, tiny: Path) -> None:
    with Client(server.grpc) as client, ThreadPoolExecutor(8) as pool:
        processes = children(server.process.pid)
        waiting = [pool.submit(ends, client, long_request(tiny, seed)) for seed in range(8)]
        time.sleep(1.5)
        stopped = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=STOP_SECONDS) == 0
        assert {job.result()[1] for job in waiting} == {"UNAVAILABLE"}
        assert all(job.result()[0] - stopped < STOP_SECONDS for job in waiting)
    gone_by(processes, 5)
    assert not shared_memory(server.process.pid)


def test_a_killed_supervisor_takes_the_server_with_it(server: LocalServer) -> None:
    killed, processes = server.process.pid, children(server.process.pid)
    assert len(processes) >= 8
    os.kill(killed, signal.SIGKILL)
    server.process.wait()
    assert shared_memory(killed) and folders(killed)
    gone_by(processes, 5)
    server.start()  # the next one tidies up
    server.wait_ready()
    assert not shared_memory(killed) and not folders(killed)


def folders(supervisor: int) -> list[Path]:
    """The folders of a supervisor's job tables and plans."""
    return list(Path(tempfile.gettempdir()).glob(f"lorikeet-{supervisor}-*"))


def shared_memory(supervisor: int) -> list[Path]:
    """What Triton and the stages of a supervisor's servers share."""
    return list(Path("/dev/shm").glob(f"*lorikeet-{supervisor}-*"))


def gone_by(processes: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LORIKEET_GRPC_PORT", "eighty", "LORIKEET_GRPC_PORT"),
        ("LORIKEET_PRECISION", "float8", "LORIKEET_PRECISION"),
        ("LORIKEET_LOCAL_PATHS", "/no/such/folder", "LORIKEET_LOCAL_PATHS"),
        ("LORIKEET_STORE_BYTE", "5GiB", "did you mean LORIKEET_STORE_BYTES?"),
    ],
)
def test_a_wrong_setting_is_an_error_at_start(name: str, value: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runtime.supervisor"],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
