"""An error of the gateway itself (disk, S3, database) ends a request as any other error does."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from lorikeet.gateway.execution.log_lines import LogLine
from lorikeet.gateway.execution.run import Runner
from lorikeet.gateway.files.part_writer import PartWriter
from lorikeet.gateway.files.rows import FileRows
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.housekeeping import Housekeeping
from lorikeet.gateway.queue import workflows
from lorikeet.gateway.queue.service import QueueService
from lorikeet.gateway.settings import GatewaySettings
from tests.gateway.webhook_receiver import WebhookReceiver
from tests.unit.client.fake_triton import FakeTriton
from tests.unit.gateway.served import Served, serve
from tests.unit.runtime.faults import raising

BODY = {"model_name": "m", "prompt": "p"}
PNG = b"\x89PNG picture"
OUTPUT = {"images": [{"url": "", "content_type": "image/png"}], "seed": 7, "has_nsfw_concepts": [False]}
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as made:
        yield made


@pytest.fixture(scope="module")
def triton() -> Iterator[FakeTriton]:
    made = FakeTriton(images=[PNG], output=OUTPUT)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gateway(
    receiver: WebhookReceiver, triton: FakeTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A gateway in which a key has one request at a time."""
    settings = {"servers": triton.url, "webhook_allow": receiver.host, "requests_per_key": 1}
    with serve(tmp_path_factory.mktemp("gateway"), **settings) as served:
        yield served


def _ask(gateway: Served, method: str, path: str, status: int, **options: Any) -> Any:
    reply = gateway.client.request(method, path, headers=gateway.auth, **options)
    assert reply.status_code == status, reply.text
    return reply.json()


def _answer(gateway: Served, path: str, content: bytes) -> tuple[int, str]:
    """Status and error type of the answer to a POST, on a connection of its own: the server may close it."""
    reply = httpx.post(f"{gateway.url}{path}", content=content, headers=gateway.auth)
    return reply.status_code, reply.headers.get("x-fal-error-type", "")


def _submit(gateway: Served, query: str = "") -> str:
    """The address of a new request."""
    request_id = _ask(gateway, "POST", f"/queue/fal-ai/lora{query}", 200, json=BODY)["request_id"]
    return f"/queue/fal-ai/lora/requests/{request_id}"


def _ended(gateway: Served, request: str) -> dict[str, Any]:
    """The last status of a request."""
    for _ in range(500):
        found = gateway.client.get(f"{request}/status", headers=gateway.auth).json()
        if found["status"] == "COMPLETED":
            return dict(found)
        time.sleep(0.02)
    raise AssertionError(found)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _full_sqlite() -> Exception:
    """The error of a real SQLite that has no page left."""
    with sa.create_engine("sqlite://").connect() as connection:
        connection.execute(sa.text("PRAGMA max_page_count = 1"))
        with pytest.raises(OperationalError) as caught:
            connection.execute(sa.text("CREATE TABLE more (x)"))
    return caught.value


FULL_DATABASES = [_full_sqlite(), OperationalError("INSERT", {}, psycopg.errors.DiskFull("No space left on device"))]
FAULTS = [
    pytest.param(PartWriter, "close", OSError(errno.EIO, "Input/output error"), 500, id="broken-disk"),
    pytest.param(PartWriter, "close", FULL, 507, id="full-disk"),
    *(pytest.param(FileRows, "add", full, 507, id=f"full-database-{i}") for i, full in enumerate(FULL_DATABASES)),
    pytest.param(FileRows, "add", OperationalError("INSERT", {}, Exception("locked")), 500, id="broken-database"),
    pytest.param(Runner, "run", ValueError("the database is closed"), 500, id="before-the-runner"),
]


@pytest.mark.parametrize(("owner", "name", "error", "status"), FAULTS)
def test_a_request_of_the_queue_ends(
    gateway: Served,
    receiver: WebhookReceiver,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    error: Exception,
    status: int,
) -> None:
    receiver.deliveries.clear()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, raising(error))
        failed = _submit(gateway, f"?fal_webhook={receiver.url}")
        ended = _ended(gateway, failed)
    assert ended["error_type"] == "internal_error"
    assert _ask(gateway, "GET", failed, status)["error_type"] == "internal_error"
    assert _ask(gateway, "PUT", f"{failed}/cancel", 400) == {"status": "ALREADY_COMPLETED"}
    _until(lambda: len(receiver.deliveries) == 1)
    message = receiver.deliveries[0].message
    assert message["status"] == "ERROR" and message["error"] == f"Invalid status code: {status}"
    assert "error" not in _ended(gateway, _submit(gateway)), "the key's next request runs"


@pytest.mark.parametrize("path", ["", "/stream"])
def test_a_run_has_the_answer(gateway: Served, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(PartWriter, "close", raising(FULL))
    reply = gateway.client.post(f"/run/fal-ai/lora{path}", json=BODY, headers=gateway.auth)
    assert reply.status_code == (200 if path else 507)
    assert "The storage is full" in reply.text and "x-fal-request-id" in reply.headers


@pytest.mark.parametrize("error", FULL_DATABASES)
@pytest.mark.parametrize("path", ["/cdn/files/upload", "/cdn/files/upload/multipart", "/rest/storage/upload/initiate"])
def test_an_upload_to_a_full_database_is_answered(
    gateway: Served, monkeypatch: pytest.MonkeyPatch, path: str, error: Exception
) -> None:
    monkeypatch.setattr(FileRows, "add", raising(error))
    assert _answer(gateway, path, b"{}") == (507, "internal_error")


def test_a_submit_to_a_full_database_is_answered_and_leaves_nothing(
    gateway: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(workflows, "_enqueue", raising(FULL_DATABASES[0]))
        assert _answer(gateway, "/queue/fal-ai/lora", json.dumps(BODY).encode()) == (507, "internal_error")
    assert "error" not in _ended(gateway, _submit(gateway))


def test_a_request_ends_although_its_webhook_cannot_be_queued(
    gateway: Served, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = workflows._enqueue

    async def broken(name: str, *rest: Any) -> None:
        if name == workflows.WEBHOOKS:
            raise OSError(errno.EIO, "Input/output error")
        await enqueue(name, *rest)

    monkeypatch.setattr(workflows, "_enqueue", broken)
    request = _submit(gateway, f"?fal_webhook={receiver.url}")
    assert "error" not in _ended(gateway, request)
    assert _ask(gateway, "GET", request, 200)["seed"] == 7


def test_a_log_that_could_not_be_published_is_published_later(
    gateway: Served, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[list[str]] = []

    async def publish(lines: list[LogLine]) -> None:
        published.append([line.message for line in lines])
        if len(published) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(GatewaySettings, "is_shared", property(lambda _: True))
    monkeypatch.setattr(gateway.services.queue.workflows, "publish_log", publish)
    triton.statuses = repeat({"status": "running", "stage": "denoiser", "step": 1, "of": 9})
    triton.gate.clear()
    request = _submit(gateway)
    _until(lambda: len(published) == 2)
    triton.gate.set()
    _ended(gateway, request)
    assert published[0] == published[1] and published[0][0] == "denoiser"


@pytest.mark.asyncio
async def test_old_requests_are_removed_although_files_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    removed = asyncio.Event()

    async def delete_expired() -> int:
        raise OSError(errno.EIO, "Input/output error")

    async def remove_old(_: float) -> None:
        removed.set()

    store, queue = SimpleNamespace(delete_expired=delete_expired), SimpleNamespace(remove_old=remove_old)
    housekeeping = Housekeeping(cast(FileStore, store), cast(QueueService, queue))
    housekeeping.start()
    await asyncio.wait_for(removed.wait(), 5)
    await housekeeping.stop()
