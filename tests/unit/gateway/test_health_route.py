"""`/health` tells which part, server or stage is down, and answers in bounded time whatever they do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from lorikeet.gateway import watched_servers as watched_module
from lorikeet.gateway.routes import health as health_module
from lorikeet.gateway.routes.health import health_router
from lorikeet.gateway.settings import SettingsError, load_settings
from lorikeet.gateway.watched_servers import WatchedServer, watched_servers
from tests.unit.gateway.supervisors import SICK, Supervisor, answering

NOWHERE = "http://127.0.0.1:9"  # the discard port, on which nothing listens


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "second").mkdir()
    running = Supervisor(tmp_path / "second")
    yield running
    running.stop()


async def _well() -> None:
    pass


async def _database_down() -> None:
    raise ConnectionError("could not connect to postgres.internal as lorikeet")


def _servers(*urls: str | None) -> list[WatchedServer]:
    return [WatchedServer(f"triton-{index}:8001", url, None) for index, url in enumerate(urls)]


def _health(
    servers: Sequence[WatchedServer],
    queue: Callable[[], Awaitable[object]] = _well,
    files: Callable[[], Awaitable[object]] = _well,
) -> tuple[int, dict[str, Any]]:
    app = FastAPI()
    app.include_router(health_router({"queue": queue, "files": files}, servers))
    with TestClient(app) as client:
        answer = client.get("/health")
        return answer.status_code, answer.json()


def test_all_is_well(supervisor: Supervisor) -> None:
    code, health = _health(_servers(supervisor.url))
    assert (code, health["status"]) == (200, "ok")
    assert health["gateway"] == health["queue"] == health["files"] == {"status": "ok"}
    (server,) = health["servers"]
    assert (server["server"], server["status"], server["sick"]) == ("triton-0:8001", "ok", None)
    assert server["stages"]["denoiser"]["ready"]


def test_a_sick_stage_is_named(supervisor: Supervisor) -> None:
    supervisor.triton.found = SICK
    code, health = _health(_servers(supervisor.url))
    assert (code, health["status"]) == (503, "down")
    assert health["servers"][0]["sick"] == {"stage": "denoiser", "reason": "stage_silent", "message": SICK.message}


def test_a_server_that_starts_cannot_run_a_request(supervisor: Supervisor) -> None:
    supervisor.status.is_ready = False
    code, health = _health(_servers(supervisor.url))
    assert (code, health["status"], health["servers"][0]["status"]) == (503, "down", "starting")


def test_one_server_of_two_is_enough(supervisor: Supervisor, second: Supervisor) -> None:
    second.triton.found = SICK
    code, health = _health(_servers(supervisor.url, second.url))
    assert (code, health["status"]) == (200, "degraded")
    assert [server["status"] for server in health["servers"]] == ["ok", "sick"]


@pytest.mark.parametrize("part", ["queue", "files"])
def test_a_part_that_is_down_is_named_without_its_address(supervisor: Supervisor, part: str) -> None:
    code, health = _health(_servers(supervisor.url), **{part: _database_down})
    assert (code, health["status"], health[part]["status"]) == (503, "down", "down")
    assert "ConnectionError" in health[part]["message"] and "postgres.internal" not in json.dumps(health)


def test_a_part_that_hangs_is_down(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PROBE_SECONDS", 0.1)
    begun = time.monotonic()
    code, health = _health(_servers(supervisor.url), queue=lambda: asyncio.sleep(60))
    assert (code, health["queue"]) == (503, {"status": "down", "message": "no answer in 0.1 s"})
    assert time.monotonic() - begun < 5


def test_a_supervisor_that_is_gone() -> None:
    code, health = _health(_servers(NOWHERE))
    assert (code, health["servers"][0]["status"]) == (503, "down")
    assert "does not answer" in health["servers"][0]["message"]


@pytest.mark.parametrize(
    "body", [b"<html>It works!</html>", b"[]", b"null", b"{}", b'{"status": "ok"}', b"\xff\xfe", b"[" * 60_000]
)
def test_what_is_no_supervisor_is_down(body: bytes) -> None:
    with answering(body) as url:
        code, health = _health(_servers(url))
    assert (code, health["servers"][0]["status"]) == (503, "down")
    assert "no supervisor of Lorikeet" in health["servers"][0]["message"]


def test_an_endless_answer_is_cut() -> None:
    with answering(b"x" * 1_000_000) as url:
        code, health = _health(_servers(url))
    assert code == 503 and "larger than 65536 bytes" in health["servers"][0]["message"]


def test_a_slow_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_module, "_SECONDS", 0.2)
    begun = time.monotonic()
    with answering(b"x" * 100, delay=3) as url:
        code, health = _health(_servers(url))
        assert time.monotonic() - begun < 2
    assert code == 503 and "no answer in 0.2 s" in health["servers"][0]["message"]


def test_a_server_without_a_status_url_is_unknown_and_not_down() -> None:
    code, health = _health(_servers(None))
    assert (code, health["status"]) == (200, "ok")
    assert health["servers"] == [{"server": "triton-0:8001", "status": "unknown"}]


def test_live_asks_nobody() -> None:
    app = FastAPI()
    app.include_router(health_router({"queue": _database_down}, _servers(NOWHERE)))
    with TestClient(app) as client:
        assert client.get("/health/live").json() == {"status": "ok"}


def test_clients_that_ask_often_share_an_answer(supervisor: Supervisor) -> None:
    asked = 0

    async def count() -> None:
        nonlocal asked
        asked += 1

    app = FastAPI()
    app.include_router(health_router({"queue": count}, _servers(supervisor.url)))
    with TestClient(app) as client:
        for _ in range(20):
            assert client.get("/health").status_code == 200
    assert asked <= 3  # one a second


def test_urls_belong_to_servers_in_order() -> None:
    servers = watched_servers(("grpc://a:8001", "grpc://b:9001"), ("http://a:8003", "http://b:9003"), ())
    assert servers == [
        WatchedServer("a:8001", "http://a:8003", None),
        WatchedServer("b:9001", "http://b:9003", None),
    ]


def test_unset_urls_are_the_default_ports_of_each_host() -> None:
    servers = watched_servers(("grpc://a:9001", "http://[::1]:8000"), None, None)
    assert servers == [
        WatchedServer("a:9001", "http://a:8003", "http://a:8002"),
        WatchedServer("[::1]:8000", "http://[::1]:8003", "http://[::1]:8002"),
    ]


@pytest.mark.parametrize("name", ["STATUS_URLS", "METRICS_URLS"])
def test_too_few_urls_are_an_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("LORIKEET_GATEWAY_SERVERS", "grpc://a, grpc://b")
    monkeypatch.setenv(f"LORIKEET_GATEWAY_{name}", "http://a")
    with pytest.raises(SettingsError, match=rf"LORIKEET_GATEWAY_{name}: .*1 URLs for 2 servers: name one for each"):
        load_settings()


def test_empty_urls_mean_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_GATEWAY_STATUS_URLS", "")
    assert load_settings().watched_servers == [WatchedServer("127.0.0.1:8001", None, "http://127.0.0.1:8002")]
