"""A running server as the cases use it: its addresses, its job table, its processes."""

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
from lorikeet import Client, Job, Result
from runtime.jobs.job_table import JobRef, JobTable
from runtime.settings import PREFIX

_POLL_SECONDS = 0.005


class RunningServer:
    """A server and its client."""

    def __init__(self, server: LocalServer, client: Client) -> None:
        self.grpc, self.http, self.client = server.grpc, server.http, client
        self._supervisor = server.process.pid
        (self._triton,) = _children(self._supervisor)
        self.job_table = JobTable(_job_table_path(self._triton))

    def timed_request(self, **fields: Any) -> tuple[float, Result]:
        """Send a request; its seconds from sending to the result, as the client measures them, and its result."""
        begun = time.perf_counter()
        result = self.client.image_to_image(fields)
        return time.perf_counter() - begun, result

    @property
    def stages(self) -> dict[str, int]:
        """Process id by stage."""
        return {stage: beat.pid for stage, beat in self.job_table.heartbeats.read().items()}

    @property
    def processes(self) -> list[int]:
        """Process ids of the supervisor, Triton, and the stages."""
        return [self._supervisor, self._triton, *self.stages.values()]

    def stage_private_bytes(self) -> dict[str, int]:
        """Private bytes by stage."""
        return {stage: private_bytes(pid) for stage, pid in self.stages.items()}

    def admitted(self, job: Job) -> JobRef:
        """Wait until the job is in the job table; its reference."""
        while (found := self.job_table.find(job.request_id, job.job_token)) is None:
            time.sleep(_POLL_SECONDS)
        return found

    def triton_version(self) -> str:
        with urllib.request.urlopen(f"{self.http}/v2", timeout=10) as reply:
            return str(json.load(reply)["version"])


@contextmanager
def running_server(folder: Path, local_paths: Path, settings: dict[str, str]) -> Iterator[RunningServer]:
    """Start a server that may read `local_paths`, with an empty store and its log in `folder`; stop it at the end."""
    all_settings = {"local_paths": str(local_paths), "store": str(folder / "store"), **settings}
    with LocalServer(folder / "server.log", all_settings) as server, Client(server.grpc) as client:
        yield RunningServer(server, client)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _job_table_path(pid: int) -> Path:
    """The job table's path, from the environment of one of the server's processes."""
    variables = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return Path(variables[f"{PREFIX}JOB_TABLE"])
