"""Health and metrics of the supervisor, over real HTTP: which stage is sick, and what hostile clients get."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from socketserver import ThreadingTCPServer
from typing import Any

import pytest

from runtime.jobs.activity import Activity, Running
from runtime.jobs.job_table import STAGES, JobTable
from runtime.supervisor import status_server
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.status import Status
from runtime.supervisor.status_server import StatusServer

SICK = Fault(Reason.STAGE_SILENT, "the stage denoiser has sent no heartbeat for 61 s", "denoiser")


@dataclass
class FakeServer:
    job_table: JobTable
    found: Fault | None = None

    def fault(self) -> Fault | None:
        return self.found


@pytest.fixture
def watched(job_table: JobTable) -> FakeServer:
    """A server whose stages are all ready."""
    for stage in STAGES:
        job_table.heartbeats.write(stage, os.getpid(), ready=True)
    return FakeServer(job_table)


@pytest.fixture
def status(watched: FakeServer) -> Status:
    """The status of a server that is ready."""
    found = Status()
    found.server, found.is_ready = watched, True
    return found


@pytest.fixture
def port(status: Status, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(status_server, "_SECONDS", 0.5)
    # It looks twice a second whether it shall end, which would be most of the time of a test.
    monkeypatch.setattr(StatusServer, "serve_forever", lambda self: ThreadingTCPServer.serve_forever(self, 0.01))
    with StatusServer("127.0.0.1", 0, status) as server:
        yield server.port


def _get(port: int, path: str = "/health", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status code, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    found = reply.status, reply.headers["Content-Type"], reply.read().decode()
    connection.close()
    return found


def _health(port: int) -> tuple[int, dict[str, Any]]:
    code, kind, body = _get(port)
    assert kind == "application/json"
    return code, json.loads(body)


def _metrics(port: int) -> dict[str, float]:
    """The value of each series, as Prometheus reads the text."""
    code, kind, body = _get(port, "/metrics")
    assert (code, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_a_ready_server_is_ok(port: int) -> None:
    code, health = _health(port)
    assert (code, health["status"], health["sick"], health["restarts"]) == (200, "ok", None, 0)
    assert health["stages"].keys() == set(STAGES)
    assert health["stages"]["prepare"]["ready"] and health["stages"]["prepare"]["running"] is None
    assert _metrics(port)["lorikeet_up"] == 1


def test_health_says_what_each_stage_does(port: int, watched: FakeServer) -> None:
    work = Activity(3, Running("engine call", time.monotonic() - 100))
    watched.job_table.heartbeats.write("denoiser", os.getpid(), ready=True, activity=work)
    _, health = _health(port)
    denoiser = health["stages"]["denoiser"]
    assert (denoiser["queued"], denoiser["running"]["what"]) == (3, "engine call")
    assert 100 <= denoiser["running"]["seconds"] < 110 and 0 <= denoiser["heartbeat_age_seconds"] < 10
    metrics = _metrics(port)
    assert metrics['lorikeet_stage_queued{stage="denoiser"}'] == 3
    assert 100 <= metrics['lorikeet_stage_running_seconds{stage="denoiser"}'] < 110
    assert metrics['lorikeet_stage_running_seconds{stage="prepare"}'] == 0


def test_health_says_which_stage_is_sick_and_why(port: int, watched: FakeServer) -> None:
    watched.found = SICK
    code, health = _health(port)
    assert (code, health["status"]) == (503, "sick")
    assert health["sick"] == {"stage": "denoiser", "reason": "stage_silent", "message": SICK.message}
    assert _metrics(port)["lorikeet_up"] == 0


def test_health_says_that_the_whole_server_is_down(port: int, watched: FakeServer) -> None:
    watched.found = Fault(Reason.SERVER_ENDED, "tritonserver ended with status -9")
    code, health = _health(port)
    assert (code, health["sick"]["stage"], health["sick"]["reason"]) == (503, None, "server_ended")


def test_a_server_that_starts_or_stops_is_not_ok(port: int, status: Status, watched: FakeServer) -> None:
    status.is_ready = False
    code, health = _health(port)
    assert (code, health["status"], health["sick"]) == (503, "starting", None)
    status.is_stopping, watched.found = True, SICK
    code, health = _health(port)
    assert (code, health["status"]) == (503, "stopping")


def test_health_answers_before_the_first_server(port: int, status: Status) -> None:
    status.server, status.is_ready = None, False
    code, health = _health(port)
    assert (code, health["status"]) == (503, "starting")
    assert health["stages"]["jobs"] == {"ready": False, "heartbeat_age_seconds": None, "queued": 0, "running": None}
    metrics = _metrics(port)
    assert metrics['lorikeet_stage_ready{stage="jobs"}'] == metrics["lorikeet_requests_in_flight"] == 0
    assert 'lorikeet_stage_heartbeat_age_seconds{stage="jobs"}' not in metrics


def test_restarts_and_requests_are_counted(port: int, status: Status, watched: FakeServer) -> None:
    status.count_restart(SICK)
    status.count_restart(SICK)
    watched.job_table.open("", "", 9)
    metrics = _metrics(port)
    restarts = {name: value for name, value in metrics.items() if name.startswith("lorikeet_restarts_total")}
    assert restarts == {
        f'lorikeet_restarts_total{{reason="{reason.value}"}}': 2 if reason == Reason.STAGE_SILENT else 0
        for reason in Reason
    }
    assert metrics["lorikeet_requests_in_flight"] == 1
    assert _health(port)[1]["restarts"] == 2


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/health?verbose=1", 200),
        ("GET", "/", 404),
        ("GET", "/health/", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/metrics%00", 404),
        ("POST", "/health", 405),
        ("HEAD", "/metrics", 405),
        ("DELETE", "/metrics", 405),
    ],
)
def test_only_get_of_two_paths_is_answered(port: int, method: str, path: str, code: int) -> None:
    assert _get(port, path, method)[0] == code


def _send(port: int, data: bytes, end: bool = False) -> bytes:
    """Send bytes, and read until the server closes. `end`: close the own side first."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        with suppress(ConnectionResetError):  # the server closed with data unread
            while chunk := connection.recv(4096):
                found += chunk
        return found


GARBAGE = [
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"GET /health SPDY/3\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 /health HTTP/1.1\r\n\r\n",
    b"\x00" * 100 + b"\r\n\r\n",
    b"\xff\xfe /\xff HTTP/9\r\n\r\n",
]


@pytest.mark.parametrize("data", GARBAGE)
def test_garbage_is_a_bad_request(port: int, data: bytes) -> None:
    assert _send(port, data).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 "))
    assert _health(port)[0] == 200


def test_a_request_that_breaks_off_is_a_bad_request(port: int) -> None:
    assert _send(port, b"GET /health HTTP/1.1\r\n", end=True).startswith(b"HTTP/1.1 400 ")


def test_a_long_request_is_refused_before_it_is_read(port: int) -> None:
    assert _send(port, b"GET /health HTTP/1.1\r\nX: " + b"a" * 20_000).startswith((b"HTTP/1.1 431 ", b""))
    assert _health(port)[0] == 200


def test_a_silent_client_is_closed_in_time(port: int) -> None:
    begun = time.monotonic()
    assert _send(port, b"").startswith(b"HTTP/1.1 408 ")
    assert 0.4 < time.monotonic() - begun < 5


def test_a_client_that_sends_slowly_is_closed_in_time(port: int) -> None:
    """A byte now and then does not renew its time."""
    begun = time.monotonic()
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    with connection, suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - begun < 10:
            connection.sendall(b"G")
            time.sleep(0.05)
    assert time.monotonic() - begun < 5


def test_slow_clients_do_not_delay_others(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "_SECONDS", 20.0)
    slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
    begun = time.monotonic()
    assert _health(port)[0] == 200
    assert time.monotonic() - begun < 10
    for connection in slow:
        connection.close()


def test_connections_beyond_the_limit_are_closed_at_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_server, "_SECONDS", 20.0)
    slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(60)]
    deadline, closed = time.monotonic() + 10, 0
    while closed < 60 - status_server._MAX_CONNECTIONS and time.monotonic() < deadline:
        closed = len(select.select(slow, [], [], 0.1)[0])  # a closed connection is readable
    assert closed == 60 - status_server._MAX_CONNECTIONS
    for connection in slow:
        connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert _health(port)[0] == 200
            return
        except (ConnectionError, http.client.HTTPException):  # the slots become free when their threads see the end
            time.sleep(0.05)
    raise AssertionError("the server never answered again")


def test_a_port_in_use_is_an_error(port: int, status: Status) -> None:
    with pytest.raises(OSError, match="in use"):
        StatusServer("127.0.0.1", port, status)
