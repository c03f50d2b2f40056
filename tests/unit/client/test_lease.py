"""A client renews the leases of its jobs while they run, even while its event loop is busy."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lorikeet.client import lease
from lorikeet.client.calls import InferCall, job_call
from lorikeet.client.lease import LeaseKeeper
from lorikeet.protocol.tensors import REQUEST
from lorikeet.schema import JobRequest


class Sent:
    """What was sent to `jobs`. `fails`: every call raises."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.fails = False

    def __call__(self, call: InferCall) -> None:
        self.messages.append(json.loads(call.inputs[REQUEST].item()))
        if self.fails:
            raise OSError("unreachable")

    def until(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.messages) < count:
            assert time.monotonic() < deadline, "no renewal came"
            time.sleep(0.005)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    found = Sent()
    monkeypatch.setattr(lease, "_sender", lambda url, headers: found)
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    return found


def test_every_job_is_renewed_until_it_ends(sent: Sent) -> None:
    keeper = LeaseKeeper("grpc://x", {})
    keeper.add(("a", "1"))
    keeper.add(("b", "2"))
    sent.until(6)
    assert {(m["action"], m["request_id"], m["job_token"]) for m in sent.messages} == {
        ("renew", "a", "1"),
        ("renew", "b", "2"),
    }
    keeper.remove(("a", "1"))
    time.sleep(0.1)
    before = len(sent.messages)
    sent.until(before + 3)
    assert {message["request_id"] for message in sent.messages[before:]} == {"b"}
    keeper.remove(("b", "2"))


def test_the_thread_ends_with_the_last_job_and_comes_back(sent: Sent) -> None:
    keeper = LeaseKeeper("grpc://x", {})
    for _ in range(2):
        keeper.add(("a", "1"))
        sent.until(len(sent.messages) + 1)
        keeper.remove(("a", "1"))
        deadline = time.monotonic() + 10
        while any(thread.name == "lorikeet-leases" for thread in threading.enumerate()):
            assert time.monotonic() < deadline, "the thread did not end"
            time.sleep(0.005)


def test_a_renewal_that_fails_is_repeated_and_named_once_in_the_log(
    sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    sent.fails = True
    keeper = LeaseKeeper("grpc://x", {})
    keeper.add(("a", "1"))
    sent.until(3)
    keeper.remove(("a", "1"))
    messages = [record.message for record in caplog.records]
    assert messages == ["cannot renew the lease of request a: unreachable"]


def test_a_renewal_over_http_goes_to_the_server_and_to_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answered.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Prints nothing."""

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        renew = JobRequest(action="renew", request_id="a", job_token="1")
        lease._sender(f"http://127.0.0.1:{server.server_port}", {})(job_call(renew))
    assert answered == ["/v2/models/jobs/infer"]


def test_a_busy_event_loop_does_not_end_a_job(sent: Sent) -> None:
    async def busy() -> None:
        keeper = LeaseKeeper("grpc://x", {})
        keeper.add(("a", "1"))
        time.sleep(0.3)  # as a caller's own computation
        assert len(sent.messages) >= 3
        keeper.remove(("a", "1"))

    asyncio.run(busy())
