"""One Triton server with the tiny models and the demo model for the whole tier, and gateways in front of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.demo_model.paths import WEIGHTS
from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer
from tests.gateway.fal_clients import AnyClient, PythonClient, make_workspace
from tests.gateway.keys import add_key
from tests.gateway.target import Target
from tests.gateway.ticks import pytest_runtest_makereport, pytest_sessionfinish
from tests.gateway.webhook_receiver import WebhookReceiver

__all__ = ["pytest_runtest_makereport", "pytest_sessionfinish"]  # hooks
PAGE_MODEL = "stabilityai/stable-diffusion-xl-base-1.0"  # the checkpoint that the API page's samples name


@pytest.fixture(scope="session")
def triton(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server in float32. The tiny SDXL has the name of the page's checkpoint too."""
    folder = tmp_path_factory.mktemp("triton")
    shutil.copytree(tiny / "sdxl", folder / "hub" / PAGE_MODEL)
    settings = {
        "local_paths": f"{tiny}:{folder / 'hub'}:{WEIGHTS}",
        "store": str(folder / "store"),
        "artifacts": str(folder / "none"),
        "precision": "float32",
    }
    with LocalServer(folder / "server.log", settings) as running:
        yield running


@pytest.fixture(scope="session")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Node runs."""
    folder = tmp_path_factory.mktemp("clients")
    make_workspace(folder)
    return folder


@pytest.fixture(scope="session")
def gateway(triton: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """A gateway without a key."""
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"servers": triton.grpc, "status_urls": triton.status, "metrics_urls": triton.metrics}
    settings["data"] = str(folder / "data")
    with LocalGateway(folder / "gateway.log", settings) as running:
        yield running


@pytest.fixture(scope="session")
def keyed_gateway(
    triton: LocalServer, receiver: WebhookReceiver, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A gateway with a key, which runs one request at a time."""
    with _gateway(tmp_path_factory.mktemp("keyed_gateway"), triton, receiver) as (url, key):
        yield Target(url, key, workspace)


@pytest.fixture(scope="session")
def tls_gateway(
    triton: LocalServer, receiver: WebhookReceiver, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """As `keyed_gateway`, over https with the certificate that it makes itself."""
    folder = tmp_path_factory.mktemp("tls_gateway")
    with _gateway(folder, triton, receiver, dev_tls="1") as (url, key):
        yield Target(url, key, workspace, authority=folder / "data" / "ca.pem")


@pytest.fixture
def target(request: pytest.FixtureRequest, client: AnyClient) -> Target:
    """The gateway for a client. fal's Python client speaks https only."""
    name = "tls_gateway" if isinstance(client, PythonClient) else "keyed_gateway"
    found: Target = request.getfixturevalue(name)
    return found


@contextmanager
def _gateway(folder: Path, triton: LocalServer, receiver: WebhookReceiver, **more: str) -> Iterator[tuple[str, str]]:
    """The URL of a gateway, and its key."""
    key = add_key(folder / "data", "tests")
    settings = {
        "servers": triton.grpc,
        "status_urls": triton.status,
        "metrics_urls": triton.metrics,
        "data": str(folder / "data"),
        "webhook_allow": receiver.host,
        "slots": "1",
        **more,
    }
    with LocalGateway(folder / "gateway.log", settings) as running:
        yield running.url, key
