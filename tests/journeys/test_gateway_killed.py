"""What the gateway accepted ends, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer
from lorikeet import Client
from runtime.settings import demo_folder
from tests.gateway import wire
from tests.gateway.postgres import Postgres
from tests.gateway.webhook_receiver import WebhookReceiver
from tests.journeys.test_killed import stub_of

SLOTS = 2


def body(seed: int, steps: int = 6) -> dict[str, Any]:
    return {"model_name": "scenes", "prompt": "a large red fish", "num_inference_steps": steps, "seed": seed}


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("triton")
    settings = {"local_paths": str(demo_folder()), "store": str(folder / "store"), "artifacts": str(folder / "none")}
    with LocalServer(folder / "server.log", settings) as server:
        yield server


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def settings_of(folder: Path, triton: LocalServer, receiver: WebhookReceiver, **more: str) -> dict[str, str]:
    common = {"servers": triton.grpc, "data": str(folder / "data"), "webhook_allow": receiver.host}
    return {**common, "slots": str(SLOTS), **more}


def expected(triton: LocalServer, request: dict[str, Any]) -> str | None:
    with Client(triton.grpc) as client:
        return client.image_to_image(request).response.images[0].sha256


def digest(gateway: str, request_id: str) -> str:
    wire.wait_until(gateway, request_id, "COMPLETED", timeout=120)
    answer = wire.result(gateway, request_id)
    assert answer.status == 200, answer
    return str(answer.body["images"][0]["sha256"])


def test_requests_survive_the_gateway_and_a_stage(
    triton: LocalServer, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    with LocalGateway(tmp_path / "gateway.log", settings_of(tmp_path, triton, receiver)) as gateway:
        ids = {}
        for seed in range(6):
            answer = wire.submit(gateway.url, body(seed), f"?fal_webhook={receiver.url}")
            ids[seed] = str(answer.body["request_id"])
        wire.wait_until(gateway.url, ids[0], "IN_PROGRESS")
        gateway.kill()
        gateway.start()
        ready = triton.output().count("lorikeet: ready after")
        os.kill(stub_of(triton, "denoiser"), signal.SIGKILL)
        digests = {seed: digest(gateway.url, request_id) for seed, request_id in ids.items()}
        triton.wait_ready(times=ready + 1)
        assert digests == {seed: expected(triton, body(seed)) for seed in ids}
        assert len(set(digests.values())) == len(ids)
        gateway.stop()
        gateway.start()
        assert digest(gateway.url, ids[3]) == digests[3]
        came = [delivery.message["request_id"] for delivery in receiver.deliveries]
        assert set(came) == set(ids.values())


def test_an_orderly_stop_keeps_what_runs(triton: LocalServer, receiver: WebhookReceiver, tmp_path: Path) -> None:
    with LocalGateway(tmp_path / "gateway.log", settings_of(tmp_path, triton, receiver)) as gateway:
        request_id = str(wire.submit(gateway.url, body(1, 60)).body["request_id"])
        wire.wait_until(gateway.url, request_id, "IN_PROGRESS")
        assert gateway.stop() == -signal.SIGTERM  # uvicorn ends in order, then by the signal
        assert "Traceback" not in gateway.output()
        gateway.start()
        assert digest(gateway.url, request_id) == expected(triton, body(1, 60))


@pytest.fixture
def two_gateways(triton: LocalServer, receiver: WebhookReceiver, tmp_path: Path) -> Iterator[list[LocalGateway]]:
    """Two gateways that share a PostgreSQL database."""
    with Postgres(tmp_path / "postgres") as database, ExitStack() as stack:
        made = []
        for name in ("first", "second"):
            settings = settings_of(tmp_path, triton, receiver, database=database.url, gateway_id=name)
            made.append(stack.enter_context(LocalGateway(tmp_path / f"{name}.log", settings)))
        yield made


@pytest.mark.verify
def test_another_gateway_takes_over_from_a_dead_one(triton: LocalServer, two_gateways: list[LocalGateway]) -> None:
    first, second = two_gateways
    ids = [str(wire.submit(first.url, body(seed, 60)).body["request_id"]) for seed in range(6)]
    running = wire.wait_until(second.url, ids[0], "IN_PROGRESS")
    assert running.body["request_id"] == ids[0]
    first.kill()
    digests = [digest(second.url, request_id) for request_id in ids]
    assert digests == [expected(triton, body(seed, 60)) for seed in range(6)]


@pytest.mark.verify
def test_gateways_that_share_a_database_answer_for_each_other(two_gateways: list[LocalGateway]) -> None:
    first, second = two_gateways
    key = {"Idempotency-Key": "one"}
    same = {wire.submit(g.url, body(9, 100), headers=key).body["request_id"] for g in (first, second, first)}
    assert len(same) == 1
    request_id = str(same.pop())
    for gateway in (first, second):
        running = wire.wait_until(gateway.url, request_id, "IN_PROGRESS")
    assert wire.ask(f"{wire.request_url(second.url, request_id)}/cancel", "PUT").status in (200, 202)
    for gateway in (first, second):
        running = wire.wait_until(gateway.url, request_id, "COMPLETED")
        assert running.body["error_type"] == "client_cancelled"
        assert wire.result(gateway.url, request_id).status == 499
