"""A server that runs every network from exported graphs in OpenVINO."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local_server import LocalServer
from lorikeet import Client


@contextmanager
def serve_graphs(tiny: Path, folder: Path, artifacts: Path, **more: str) -> Iterator[Client]:
    """A client of a server in float32 that runs nothing in torch. `folder` is for its store and its log; `more` are
    further settings."""
    settings = {
        "local_paths": str(tiny),
        "store": str(folder / "store"),
        "artifacts": str(artifacts),
        "precision": "float32",
        "engine": "openvino",
        **more,
    }
    with LocalServer(folder / "server.log", settings) as server, Client(server.grpc) as connected:
        yield connected
