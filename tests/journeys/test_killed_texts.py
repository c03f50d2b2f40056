"""What raw clients read while a stage is killed under them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from deploy.local_server import LocalServer
from tests.journeys.test_killed import stub_of
from tests.server.error_texts import Refused, leak

CLIENTS = 6
SECONDS = 3.0
CLOSED = "the connection is closed"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_errors_around_a_kill_give_nothing_away(server: LocalServer, protocol: str) -> None:
    ready = server.output().count("lorikeet: ready after")
    send: Callable[[Refused, str], str] = Refused.over_grpc if protocol == "grpc" else Refused.over_http
    address = server.grpc if protocol == "grpc" else server.http
    ends = time.monotonic() + SECONDS

    def texts() -> set[str]:
        found = set()
        while time.monotonic() < ends:
            try:
                found.add(send(Refused(parameters={"job_priority": "first"}), address))
            except (OSError, HTTPException):  # the server closes its connections, and has no port open meanwhile
                found.add(CLOSED)
                time.sleep(0.01)
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(texts) for _ in range(CLIENTS)]
        time.sleep(0.5)
        os.kill(stub_of(server, "prepare"), signal.SIGKILL)
        seen = set().union(*(one.result() for one in running))
    assert len(seen) > 1, "no request met the kill"
    assert [text for text in seen if leak(text)] == []
    server.wait_ready(times=ready + 1, timeout=60)
