"""One Triton server with the demo model and one gateway before it, for the whole tier."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.demo_model.paths import WEIGHTS
from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("triton")
    settings = {"local_paths": str(WEIGHTS), "store": str(folder / "store"), "precision": "float32"}
    with LocalServer(folder / "server.log", settings | {"artifacts": str(folder / "none")}) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(triton: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"servers": triton.grpc, "status_urls": triton.status, "metrics_urls": triton.metrics}
    settings["data"] = str(folder / "data")
    with LocalGateway(folder / "gateway.log", settings) as running:
        yield running
