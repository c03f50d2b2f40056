"""Supervisors' status servers, and HTTP servers that answer what no supervisor does."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.jobs.job_table import STAGES, JobTable
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.status import Status
from runtime.supervisor.status_server import StatusServer

SICK = Fault(Reason.STAGE_SILENT, "the stage denoiser has sent no heartbeat for 61 s", "denoiser")


@dataclass
class WatchedTriton:
    """A server whose stages are all ready, as a supervisor watches it."""

    job_table: JobTable
    found: Fault | None = None

    def fault(self) -> Fault | None:
        return self.found


class Supervisor:
    """A real status server. `status` and `triton` may be changed while it runs."""

    def __init__(self, folder: Path) -> None:
        self.triton = WatchedTriton(JobTable(folder / "job_table"))
        for stage in STAGES:
            self.triton.job_table.heartbeats.write(stage, os.getpid(), ready=True)
        self.status = Status()
        self.status.server, self.status.is_ready = self.triton, True
        self._server = StatusServer("127.0.0.1", 0, self.status)
        self.url = f"http://127.0.0.1:{self._server.port}"
        # 0.01 s: it looks only so often whether it shall end.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def answering(body: bytes, code: int = 200, delay: float = 0.0) -> Iterator[str]:
    """The URL of a server that gives each GET this answer, byte by byte in `delay` seconds."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            with suppress(OSError):  # the client has what it wants
                for byte in range(len(body) if delay else 1):
                    self.wfile.write(body[byte : byte + 1] if delay else body)
                    time.sleep(delay / len(body) if delay else 0)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
