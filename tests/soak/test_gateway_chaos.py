"""Forty queued requests while gateways, tritonservers and stages are killed: all end with the picture of their seed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer
from runtime.settings import demo_folder
from tests.gateway.chaos import Chaos
from tests.gateway.postgres import Postgres
from tests.gateway.webhook_receiver import WebhookReceiver

REQUESTS = int(os.environ.get("REQUESTS", "40"))
KILLS = int(os.environ.get("GATEWAY_KILLS", "12"))
SEED = int(os.environ.get("SEED", "1"))
BODY = {
    "model_name": "scenes",
    "prompt": "a large red fish on the sea",
    "num_inference_steps": 12,
    "image_size": {"width": 128, "height": 128},
}


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[list[LocalServer]]:
    """Triton servers of the demo model in torch."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            settings = {"local_paths": str(demo_folder()), "store": str(folder / f"store{number}")}
            settings |= {"artifacts": str(folder / "none"), "precision": "float32"}
            made.append(stack.enter_context(LocalServer(folder / f"server{number}.log", settings)))
        yield made


def gateway_settings(
    folder: Path, triton: list[LocalServer], receiver: WebhookReceiver, **more: str
) -> Mapping[str, str]:
    return {
        "servers": ",".join(server.grpc for server in triton),
        "data": str(folder / "data"),
        "webhook_allow": receiver.host,
        "slots": "4",
        **more,
    }


def test_one_gateway_on_sqlite_loses_nothing(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as triton, WebhookReceiver() as receiver:
        settings = gateway_settings(tmp_path, triton, receiver)
        with LocalGateway(tmp_path / "gateway.log", settings) as gateway:
            chaos = Chaos([gateway], triton, receiver, BODY, SEED)
            chaos.run(REQUESTS, KILLS, pause=2.0)


@pytest.mark.parametrize("seed", [SEED])
def test_two_gateways_and_two_servers_on_postgresql_lose_nothing(tmp_path: Path, seed: int) -> None:
    with (
        Postgres(tmp_path / "postgres") as database,
        servers(tmp_path, 2) as triton,
        WebhookReceiver() as receiver,
        contextlib.ExitStack() as stack,
    ):
        gateways = []
        for number in range(2):
            settings = gateway_settings(
                tmp_path, triton, receiver, database=database.url, gateway_id=f"gateway-{number}"
            )
            gateways.append(stack.enter_context(LocalGateway(tmp_path / f"gateway{number}.log", settings)))
        Chaos(gateways, triton, receiver, BODY, seed).run(REQUESTS, KILLS, pause=2.0)
