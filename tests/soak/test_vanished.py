"""Fifty clients vanish: when their leases have ended, the server works for those that are left."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.running_server import RunningServer
from deploy.local_server import LocalServer
from lorikeet import Client
from lorikeet.client.lease import LEASE_SECONDS
from tests.journeys.test_killed import long_request

CLIENTS = 50
SLOWER = 1.2
CALL_SECONDS = 5.0  # an engine call of these requests takes less
# One process with fifty requests in flight. It says when they are sent, and waits to be killed.
_CLIENTS = """
import json, sys, time
from lorikeet import Client
url, count, request = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
client = Client(url)
jobs = [client.submit(request | {"seed": seed}) for seed in range(count)]
print("sent", flush=True)
time.sleep(600)
"""


def test_clients_that_vanish_take_their_work_with_them(server: LocalServer, tiny: Path) -> None:
    with Client(server.grpc) as client:
        running = RunningServer(server, client)
        request = long_request(tiny, 0)
        good = request | {"num_inference_steps": 20}
        alone = median(running.timed_request(**good)[0] for _ in range(3))
        clients = subprocess.Popen(
            [sys.executable, "-c", _CLIENTS, server.grpc, str(CLIENTS), json.dumps(request)], stdout=subprocess.PIPE
        )
        assert clients.stdout is not None and clients.stdout.readline() == b"sent\n"
        _until(lambda: len(running.job_table.live()) >= CLIENTS, 60)
        clients.kill()
        clients.wait()
        vanished = time.monotonic()
        _until(lambda: not running.job_table.live(), LEASE_SECONDS + CALL_SECONDS)
        print(f"the last job ended {time.monotonic() - vanished:.1f} s after its client", flush=True)
        after = median(running.timed_request(**good)[0] for _ in range(3))
        print(f"a good request: {alone:.2f} s alone, {after:.2f} s after", flush=True)
        assert after < SLOWER * alone


def _until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not after {seconds:g} s"
        time.sleep(0.1)
