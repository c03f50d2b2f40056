"""A server of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local_server import LocalServer


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[LocalServer]:
    settings = {"local_paths": str(tiny), "store": str(tmp_path / "store"), "precision": "float32"}
    with LocalServer(tmp_path / "server.log", settings) as running:
        yield running
