"""One server for the whole tier, in float32, that may read the tiny checkpoints and the demo model and fetch from one
web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo_model.paths import CHECKPOINT, WEIGHTS
from deploy.local_server import LocalServer
from lorikeet import Client
from tests.export_command import export
from tests.server.parity import Answers, selected
from tests.server.web import Web


@pytest.fixture(scope="session")
def web(tiny: Path) -> Iterator[Web]:
    """The tiny folder on a web server of this machine."""
    with Web(tiny) as running:
        yield running


@pytest.fixture(scope="session")
def local_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files a request may name by their path in it. Its name has spaces and other alphabets."""
    folder = tmp_path_factory.mktemp("local") / "möbel 青 (1)"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the server. Its name has spaces and other alphabets."""
    return tmp_path_factory.mktemp("store") / "magasin à 模型"


@pytest.fixture(scope="session")
def server(
    tiny: Path, web: Web, local_files: Path, store_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "local_paths": f"{tiny}:{WEIGHTS}:{local_files}",
        "store": str(store_folder),
        "precision": "float32",
    }
    settings["fetch_allow"] = web.host
    with LocalServer(folder / "server.log", settings) as running:
        yield running


@pytest.fixture(scope="session")
def in_bfloat16(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of the same models in bfloat16."""
    folder = tmp_path_factory.mktemp("bfloat16")
    settings = {"local_paths": f"{tiny}:{WEIGHTS}", "store": str(folder / "store"), "precision": "bfloat16"}
    with LocalServer(folder / "server.log", settings) as server, Client(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def demo_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported graphs of the demo model."""
    made = export(CHECKPOINT, tmp_path_factory.mktemp("demo_graphs") / "artifacts")
    assert made.status == 0, made.output
    return made.artifacts


@pytest.fixture(scope="session")
def demo_on_openvino(demo_graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of the demo model in OpenVINO, in bfloat16 where the processor has it, else in float32."""
    folder = tmp_path_factory.mktemp("demo_on_openvino")
    settings = {"local_paths": str(WEIGHTS), "store": str(folder / "store"), "artifacts": str(demo_graphs)}
    settings |= {"engine": "openvino", "precision": "bfloat16"}
    with LocalServer(folder / "server.log", settings) as server, Client(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[Client]:
    with Client(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def answers(request: pytest.FixtureRequest, client: Client, tiny: Path) -> Iterator[Answers]:
    """The answers to all rows of parity that this run has selected."""
    running = Answers(client, tiny, selected(request, "row"))
    yield running
    running.close()
