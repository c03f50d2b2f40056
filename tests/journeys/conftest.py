"""One server for all journeys that do harm to one: a start takes longer than they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local_server import LocalServer


@pytest.fixture(scope="session")
def shared_server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("journeys")
    settings = {"local_paths": str(tiny), "store": str(folder / "store"), "precision": "float32"}
    with LocalServer(folder / "server.log", settings) as running:
        yield running


@pytest.fixture
def server(shared_server: LocalServer) -> LocalServer:
    """The shared server, started anew where a test before has ended it."""
    if shared_server.process.poll() is not None:
        shared_server.start()
        shared_server.wait_ready()
    return shared_server
