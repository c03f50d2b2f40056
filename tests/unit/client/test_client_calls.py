import asyncio
import socket
import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest

from lorikeet import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    LorikeetError,
    NotFound,
    Unavailable,
)
from lorikeet.client import lease
from lorikeet.schema import JobStatus
from tests.unit.client.fake_triton import FakeTriton, ScriptedError

BASE = {"model_name": "org/model", "prompt": "p"}


def running(step: int) -> dict[str, object]:
    return {"status": "running", "stage": "denoiser", "step": step, "of": 3}


def test_one_request(triton: FakeTriton, png: bytes) -> None:
    with Client(triton.url, headers={"Authorization": "Key x"}) as client:
        result = client.image_to_image(BASE, image=png, seed=7, debug_latents=False)
    assert (result.files, result.seed, result.images[0].size) == ([png], 7, (8, 4))
    [call] = triton.received
    assert call.request == {**BASE, "seed": 7, "debug_latents": False, "image_url": "tensor:0"}
    assert call.inputs["FILES"] == [png]
    assert call.outputs == ["RESPONSE", "IMAGES"]
    assert call.metadata["authorization"] == "Key x"
    assert (len(call.id), len(call.parameters["job_token"])) == (32, 32)
    assert triton.jobs == []


def test_latents(triton: FakeTriton) -> None:
    triton.latents = {
        "DEBUG_LATENTS": np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2),
        "DEBUG_PER_PASS_LATENTS": np.empty((0, 1, 4, 2, 2), np.float32),
    }
    with Client(triton.url) as client:
        result = client.image_to_image(BASE, debug_latents=True, debug_per_pass_latents=True, request_id="mine")
    assert triton.received[0].id == result.request_id == "mine"
    assert result.latents is not None and result.latents.tolist() == triton.latents["DEBUG_LATENTS"].tolist()
    assert result.per_pass_latents is None


def test_messages_beyond_grpc_s_4_mib(triton: FakeTriton) -> None:
    triton.images = [bytes(5 * 2**20)]
    with Client(triton.url) as client:
        assert client.image_to_image(BASE, image=bytes(6 * 2**20)).files == triton.images


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest, "INVALID_ARG"),
        (grpc.StatusCode.NOT_FOUND, NotFound, "NOT_FOUND"),
        (grpc.StatusCode.UNAVAILABLE, Unavailable, "UNAVAILABLE"),
        (grpc.StatusCode.INTERNAL, LorikeetError, "INTERNAL"),
    ],
)
def test_server_errors(triton: FakeTriton, code: grpc.StatusCode, kind: type[LorikeetError], status: str) -> None:
    triton.error = ScriptedError(code, "in ensemble 'lora_image_to_image', loras[0].path: gone")
    with Client(triton.url) as client, pytest.raises(kind) as caught:
        client.image_to_image(BASE)
    assert (type(caught.value), caught.value.status, str(caught.value)) == (
        kind,
        status,
        "loras[0].path: gone",
    )


def test_invalid_requests_are_not_sent(triton: FakeTriton) -> None:
    with Client(triton.url) as client, pytest.raises(InvalidRequest, match="eta: Input should be"):
        client.image_to_image(BASE, eta=2)
    assert triton.received == []


@pytest.mark.parametrize("fields", [{"prompt": "\ud800"}, {"foo": "\ud800"}, {"\ud800": 1}, {"request_id": "\ud800"}])
def test_half_of_a_surrogate_pair_is_not_sent(triton: FakeTriton, fields: dict[str, Any]) -> None:
    with Client(triton.url) as client, pytest.raises(InvalidRequest, match=r"(?i)unicode"):
        client.image_to_image(**{**BASE, **fields})
    assert not triton.received


@pytest.mark.parametrize(("request_id", "token"), [("\ud800", "t"), ("a", "\ud800"), ("", "t"), ("a", "t" * 256)])
def test_a_name_that_no_job_has_is_refused(triton: FakeTriton, request_id: str, token: str) -> None:
    with Client(triton.url) as client:
        for ask in (client.status, client.cancel):
            with pytest.raises(InvalidRequest, match=r"^(request_id|job_token): "):
                ask(request_id, token)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listens(triton: FakeTriton, scheme: str) -> None:
    triton.stop()
    with Client(f"{scheme}://127.0.0.1:{triton.port}") as client, pytest.raises(Unavailable):
        client.image_to_image(BASE)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_dropped_connection(scheme: str) -> None:
    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up).start()
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url) as client, pytest.raises(Unavailable):
            client.image_to_image(BASE, timeout=5)


def test_progress(triton: FakeTriton) -> None:
    triton.gate.clear()
    triton.statuses = iter([{"status": "queued"}, running(1), running(1), running(2)])
    seen: list[JobStatus] = []

    def note(status: JobStatus) -> None:
        seen.append(status)
        if status.step == 2:
            triton.gate.set()

    with Client(triton.url) as client:
        assert client.image_to_image(BASE, on_progress=note, timeout=5).seed == 7
    assert [(status.status, status.step) for status in seen] == [
        ("queued", 0),
        ("running", 1),
        ("running", 2),
    ]
    token = triton.received[0].parameters["job_token"]
    assert {job["job_token"] for job in triton.jobs} == {token}


def test_an_error_in_the_callback_cancels(triton: FakeTriton) -> None:
    triton.gate.clear()

    def fail(_: JobStatus) -> None:
        raise ZeroDivisionError

    with Client(triton.url) as client, pytest.raises(ZeroDivisionError):
        client.image_to_image(BASE, on_progress=fail)
    assert triton.cancelled.is_set()


def test_the_callback_may_call_the_client(triton: FakeTriton) -> None:
    triton.gate.clear()
    with Client(triton.url) as client:
        job = client.submit(BASE)
        with pytest.raises(Cancelled):
            job.result(timeout=5, on_progress=lambda status: client.cancel(job.request_id, job.job_token))
        assert triton.cancelled.is_set()


def test_a_lease_is_renewed_whatever_the_case_of_the_headers(
    triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    triton.gate.clear()
    with Client(triton.url, headers={"Authorization": "Key x"}) as client:
        job = client.submit(BASE)
        deadline = time.monotonic() + 10
        while {"renew"} - {sent["action"] for sent in triton.jobs}:
            assert time.monotonic() < deadline, "no renewal came"
            time.sleep(0.005)
        triton.gate.set()
        job.result(timeout=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_id": "a" * 256}, "request_id: expected at most 255 characters, found 256"),
        ({"timeout": float("inf")}, "job_timeout_ms: expected a finite number of seconds, found inf"),
        ({"timeout": float("nan")}, "job_timeout_ms: expected a finite number of seconds, found nan"),
    ],
)
def test_a_name_or_time_that_no_job_can_have_is_refused(
    triton: FakeTriton, options: dict[str, Any], message: str
) -> None:
    with Client(triton.url) as client, pytest.raises(InvalidRequest, match=message):
        client.image_to_image(BASE, **options)
    assert triton.received == []


def test_a_timeout_cancels(triton: FakeTriton) -> None:
    triton.gate.clear()
    with Client(triton.url) as client, pytest.raises(DeadlineExceeded, match=r"longer than 0\.2 s"):
        client.image_to_image(BASE, timeout=0.2)
    assert triton.cancelled.is_set()


def test_asyncio_cancellation_cancels(triton: FakeTriton) -> None:
    triton.gate.clear()

    async def main() -> None:
        async with AsyncClient(triton.url) as client:
            task = asyncio.create_task(client.image_to_image(BASE))
            await asyncio.to_thread(triton.arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert triton.cancelled.is_set()


def test_a_job(triton: FakeTriton) -> None:
    triton.gate.clear()
    triton.statuses = iter([running(1)])
    with Client(triton.url) as client:
        job = client.submit(BASE, request_id="mine")
        assert triton.arrived.wait(5)
        assert job.status().step == 1
        with pytest.raises(DeadlineExceeded):
            job.result(timeout=0.05)
        with pytest.raises(NotFound):
            client.status("mine", "another token")
        assert client.cancel("mine", job.job_token).status == "cancelled"
        with pytest.raises(Cancelled):
            job.result()


def test_a_cancel_that_comes_before_admission_is_repeated(triton: FakeTriton) -> None:
    triton.gate.clear()
    received, triton.received = triton.received, []
    with Client(triton.url) as client:
        job = client.submit(BASE)
        assert triton.arrived.wait(5)
        received.extend(triton.received)
        triton.received = []  # as if it were still on its way
        threading.Timer(0.3, lambda: setattr(triton, "received", received)).start()
        assert job.cancel().status == "cancelled"
        with pytest.raises(NotFound):
            client.cancel("nobody", job.job_token)
    assert len(triton.jobs) >= 3


def test_wait_ready(triton: FakeTriton) -> None:
    triton.is_ready = False
    with Client(f"127.0.0.1:{triton.port}") as client:
        with pytest.raises(DeadlineExceeded, match=r"not ready after 0\.3 s"):
            client.wait_ready(0.3)
        threading.Timer(0.2, lambda: setattr(triton, "is_ready", True)).start()
        started = time.monotonic()
        client.wait_ready(5)
        assert 0.1 < time.monotonic() - started < 2


def test_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="expected a URL with the scheme"), Client("ftp://x") as client:
        client.wait_ready()
