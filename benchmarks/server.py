"""A running server as the cases see it: its addresses, its job_table, its processes."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.smaps import private_bytes
from deploy.local_server import LocalServer
from lorikeet import Client, Result
from runtime.jobs.job_table import JobTable
from runtime.settings import PREFIX


class Serving:
    """A server and a client of it."""

    def __init__(self, server: LocalServer, client: Client) -> None:
        self.grpc, self.http, self.client = server.grpc, server.http, client
        self._supervisor = server.process.pid
        (self._triton,) = _children(self._supervisor)
        self.job_table = JobTable(_board_path(self._triton))

    def ask(self, **fields: Any) -> tuple[float, Result]:
        """Seconds that a request takes at the client, and its result."""
        begun = time.perf_counter()
        result = self.client.image_to_image(fields)
        return time.perf_counter() - begun, result

    @property
    def stages(self) -> dict[str, int]:
        """Stage -> process id."""
        return {stage: pid for stage, (pid, _, _) in self.job_table.beats().items()}

    @property
    def processes(self) -> list[int]:
        """The supervisor, Triton, and the stages."""
        return [self._supervisor, self._triton, *self.stages.values()]

    def private(self) -> dict[str, int]:
        """Stage -> its private bytes."""
        return {stage: private_bytes(pid) for stage, pid in self.stages.items()}

    def triton_version(self) -> str:
        with urllib.request.urlopen(f"{self.http}/v2", timeout=10) as reply:
            return str(json.load(reply)["version"])


@contextmanager
def serving(folder: Path, local_paths: Path, settings: dict[str, str]) -> Iterator[Serving]:
    """A server for a while, with an empty store and its log in `folder`, that may read `local_paths`."""
    given = {"local_paths": str(local_paths), "store": str(folder / "store"), **settings}
    with LocalServer(folder / "server.log", given) as server, Client(server.grpc) as client:
        yield Serving(server, client)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _board_path(pid: int) -> Path:
    """The job table of the server that this process belongs to, as its environment says."""
    variables = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return Path(variables[f"{PREFIX}BOARD"])
