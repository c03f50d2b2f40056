"""The queue of a real gateway, in front of a Triton that answers when the test says."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from deploy.local_gateway import LocalGateway
from tests.gateway import wire
from tests.unit.client.fake_triton import FakeTriton, ScriptedError

PNG = b"\x89PNG picture"
BODY = {"model_name": "m", "prompt": "p"}
OUTPUT = {
    "images": [{"url": "", "content_type": "image/png", "width": 8, "height": 8}],
    "seed": 7,
    "has_nsfw_concepts": [False],
    "warnings": ["something had no effect"],
}


@pytest.fixture(scope="module")
def triton_of_all() -> Iterator[FakeTriton]:
    made = FakeTriton(images=[PNG], output=OUTPUT)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def gateway(triton_of_all: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"servers": triton_of_all.url, "data": str(folder / "data"), "slots": "1", "max_attempts": "3"}
    with LocalGateway(folder / "gateway.log", settings) as running:
        yield running.url


@pytest.fixture
def triton(triton_of_all: FakeTriton) -> Iterator[FakeTriton]:
    """The Triton, at rest; it answers at once unless the test clears `gate`."""
    triton_of_all.error = None
    triton_of_all.received.clear()
    triton_of_all.cancelled.clear()
    triton_of_all.gate.set()
    yield triton_of_all
    triton_of_all.gate.set()


@pytest.fixture
def busy(gateway: str, triton: FakeTriton) -> Iterator[str]:
    """The id of a request that runs until the test sets the gate."""
    triton.gate.clear()
    request_id = submitted(gateway, {**BODY, "prompt": "the busy one"})
    wire.wait_until(gateway, request_id, "IN_PROGRESS")
    yield request_id
    triton.gate.set()
    wire.wait_until(gateway, request_id, "COMPLETED")


def submitted(gateway: str, body: object = BODY, **headers: str) -> str:
    answer = wire.submit(gateway, body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status == 200, answer
    return str(answer.body["request_id"])


def prompts(triton: FakeTriton) -> list[str]:
    return [json.loads(one.inputs["REQUEST"][0])["prompt"] for one in triton.received]


def test_a_request_ends_with_pictures_that_can_be_fetched(gateway: str, triton: FakeTriton) -> None:
    request_id = submitted(gateway)
    ended = wire.wait_until(gateway, request_id, "COMPLETED")
    assert ended.status == 200 and ended.headers["x-fal-request-id"] == request_id
    assert ended.body["logs"][-1]["message"] == "something had no effect" and ended.body["logs"][-1]["level"] == "WARN"
    assert ended.body["metrics"]["inference_time"] > 0 and "error" not in ended.body
    result = wire.result(gateway, request_id)
    assert result.status == 200 and result.headers["x-fal-request-id"] == request_id
    assert result.body["images"][0]["url"].startswith(f"{gateway}/cdn/files/")
    assert result.body["images"][0]["file_size"] == len(PNG) and "debug_latents" not in result.body


def test_low_priority_waits_behind_normal(gateway: str, triton: FakeTriton, busy: str) -> None:
    low = submitted(gateway, {**BODY, "prompt": "low"}, x_fal_queue_priority="low")
    normal = submitted(gateway, {**BODY, "prompt": "normal"}, x_fal_queue_priority="normal")
    assert wire.status(gateway, normal).body["queue_position"] == 0
    assert wire.status(gateway, low).body["queue_position"] == 1
    assert wire.status(gateway, low).status == 202
    triton.gate.set()
    for request_id in (low, normal):
        wire.wait_until(gateway, request_id, "COMPLETED")
    assert prompts(triton) == ["the busy one", "normal", "low"]
    assert [one.parameters.get("job_priority", "2") for one in triton.received][-1] != "2"


def test_repeated_submits_are_one_request(gateway: str, triton: FakeTriton) -> None:
    first = submitted(gateway, Idempotency_Key="one")
    assert submitted(gateway, Idempotency_Key="one") == first
    assert submitted(gateway, Idempotency_Key="two") != first
    other = wire.submit(gateway, {**BODY, "prompt": "other"}, headers={"Idempotency-Key": "one"})
    assert other.status == 422
    seeded = submitted(gateway, {**BODY, "seed": 5})
    assert submitted(gateway, {"seed": 5, **BODY}) == seeded
    assert submitted(gateway, {**BODY, "seed": 6}) != seeded
    last = submitted(gateway)
    assert submitted(gateway) != last
    wire.wait_until(gateway, last, "COMPLETED")


def test_a_waiting_request_leaves_the_queue_when_it_is_cancelled(gateway: str, triton: FakeTriton, busy: str) -> None:
    request_id = submitted(gateway, {**BODY, "prompt": "cancelled"})
    url = f"{wire.request_url(gateway, request_id)}/cancel"
    answer = wire.ask(url, "PUT")
    assert (answer.status, answer.body) == (200, {"status": "OK"})
    ended = wire.status(gateway, request_id)
    assert ended.body["status"] == "COMPLETED" and ended.body["error_type"] == "client_cancelled"
    result = wire.result(gateway, request_id)
    assert result.status == 499 and result.headers["x-fal-error-type"] == "client_cancelled"
    assert wire.ask(url, "PUT").body == {"status": "ALREADY_COMPLETED"}
    triton.gate.set()
    wire.wait_until(gateway, busy, "COMPLETED")
    assert "cancelled" not in prompts(triton)


def test_a_running_request_is_cancelled_on_triton(gateway: str, triton: FakeTriton, busy: str) -> None:
    answer = wire.ask(f"{wire.request_url(gateway, busy)}/cancel", "PUT")
    assert (answer.status, answer.body) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert triton.cancelled.wait(5)
    assert wire.result(gateway, busy).status == 499


def test_a_request_that_does_not_start_in_time_ends(gateway: str, triton: FakeTriton, busy: str) -> None:
    request_id = submitted(gateway, {**BODY, "prompt": "late"}, X_Fal_Request_Start_Timeout="0.5")
    ended = wire.wait_until(gateway, request_id, "COMPLETED", timeout=5)
    assert ended.body["error_type"] == "request_timeout"
    result = wire.result(gateway, request_id)
    assert result.status == 504 and result.headers["x-fal-request-timeout-type"] == "user"
    run = wire.ask(f"{gateway}/run/fal-ai/lora", "POST", BODY, {"X-Fal-Request-Timeout": "0.3"})
    assert run.status == 504 and run.headers["x-fal-request-timeout-type"] == "user"


def test_a_full_queue_refuses(gateway: str, busy: str) -> None:
    waiting = [submitted(gateway) for _ in range(2)]
    assert wire.submit(gateway, BODY, "?fal_max_queue_length=1").status == 429
    accepted = wire.submit(gateway, BODY, "?fal_max_queue_length=5")
    assert accepted.status == 200
    for request_id in [*waiting, accepted.body["request_id"]]:
        wire.ask(f"{wire.request_url(gateway, request_id)}/cancel", "PUT")


def test_invalid_input_ends_at_once_although_others_wait(gateway: str, busy: str) -> None:
    request_id = submitted(gateway, {"model_name": "m"})
    assert wire.wait_until(gateway, request_id, "COMPLETED", timeout=5).body["error_type"] == "validation_error"
    result = wire.result(gateway, request_id)
    assert result.status == 422
    assert result.body["detail"] == [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]


def test_what_is_no_request_is_refused(gateway: str, busy: str) -> None:
    assert wire.result(gateway, busy).body == {"detail": "Request is still in progress"}
    assert wire.result(gateway, busy).status == 400
    for path in ("", "/status", "/cancel"):
        method = "PUT" if path == "/cancel" else "GET"
        answer = wire.ask(f"{wire.request_url(gateway, 'unknown')}{path}", method)
        assert (answer.status, answer.body) == (404, {"status": "NOT_FOUND"})
    assert wire.submit(gateway, [1]).status == 422
    assert wire.submit(gateway, BODY, "?fal_webhook=http://127.0.0.1/").status == 400
    assert wire.ask(f"{gateway}/queue/fal-ai/flux", "POST", BODY).status == 404


def test_a_failed_server_is_asked_again(gateway: str, triton: FakeTriton) -> None:
    triton.error = ScriptedError(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
    request_id = submitted(gateway)
    while len(triton.received) < 2:
        time.sleep(0.01)
    triton.error = None
    ended = wire.wait_until(gateway, request_id, "COMPLETED")
    assert "error" not in ended.body and "attempt 1 failed" in ended.body["logs"][0]["message"]
    assert len({one.id for one in triton.received}) == len(triton.received)


def test_no_retry_and_the_last_attempt_end_with_503(gateway: str, triton: FakeTriton) -> None:
    triton.error = ScriptedError(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
    once = submitted(gateway, X_Fal_No_Retry="1")
    wire.wait_until(gateway, once, "COMPLETED")
    assert wire.result(gateway, once).status == 503 and len(triton.received) == 1
    assert wire.result(gateway, once).headers["x-fal-retryable"] == "true"
    thrice = submitted(gateway)
    wire.wait_until(gateway, thrice, "COMPLETED")
    assert wire.result(gateway, thrice).status == 503 and len(triton.received) == 4


def test_what_triton_finds_invalid_is_422_at_its_field(gateway: str, triton: FakeTriton) -> None:
    triton.error = ScriptedError(grpc.StatusCode.INVALID_ARGUMENT, "loras[0].path: no such file")
    request_id = submitted(gateway, {**BODY, "loras": [{"path": "a"}]})
    wire.wait_until(gateway, request_id, "COMPLETED")
    result = wire.result(gateway, request_id)
    assert result.status == 422 and len(triton.received) == 1
    (detail,) = result.body["detail"]
    assert detail["loc"] == ["body", "loras", 0, "path"] and detail["msg"] == "no such file"


@pytest.mark.parametrize("path", ["/run/fal-ai/lora/image-to-image", "/run/fal-ai/lora/image-to-image/stream"])
def test_a_run_whose_client_goes_away_is_cancelled(gateway: str, triton: FakeTriton, path: str) -> None:
    triton.gate.clear()
    triton.arrived.clear()
    parts = urlsplit(gateway)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("POST", path, json.dumps(BODY), {"Content-Type": "application/json"})
    assert triton.arrived.wait(5)
    connection.close()
    assert triton.cancelled.wait(5)


def test_a_stream_tells_of_the_run_and_ends_with_its_output(gateway: str, triton: FakeTriton) -> None:
    events = list(_events(f"{gateway}/run/fal-ai/lora/stream", BODY))
    assert events[0]["status"] == "IN_PROGRESS" and events[-1]["seed"] == 7


def test_a_stream_sends_the_whole_log_before_its_output(
    gateway: str, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the lines come at the very end, all at once."""
    warnings = [f"warning {number}" for number in range(150)]
    monkeypatch.setitem(triton.output, "warnings", warnings)
    *events, last = _events(f"{gateway}/run/fal-ai/lora/stream", BODY)
    assert [line["message"] for event in events for line in event["logs"]][-150:] == warnings
    assert last["seed"] == 7


def test_a_status_stream_sends_each_log_line_once(gateway: str, triton: FakeTriton, busy: str) -> None:
    triton.gate.set()
    events = list(_events(f"{wire.request_url(gateway, busy)}/status/stream?logs=1"))
    lines = [line["message"] for event in events for line in event["logs"]]
    assert events[-1]["status"] == "COMPLETED"
    assert lines == [line["message"] for line in wire.status(gateway, busy).body["logs"]]


def _events(url: str, body: object = None) -> Iterator[dict[str, Any]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    method, text = ("GET", None) if body is None else ("POST", json.dumps(body))
    connection.request(method, f"{parts.path}?{parts.query}", text, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert (reply.getheader("content-type") or "").startswith("text/event-stream")
    for line in reply.read().decode().splitlines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))
