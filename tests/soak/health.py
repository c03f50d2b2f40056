"""What `/health` of a server says over a time."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from benchmarks.poll_thread import PollThread
from deploy.local_server import LocalServer

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Look:
    """One answer of `/health`, and when it came (CLOCK_MONOTONIC seconds)."""

    at: float
    health: dict[str, Any]

    @property
    def call_seconds(self) -> float:
        """The age of the engine call that runs in the denoiser, or 0."""
        running = self.health["stages"]["denoiser"]["running"]
        return float(running["seconds"]) if running and running["what"] == "engine call" else 0.0


class HealthWatch(PollThread):
    """Reads `/health` every 0.2 s while the block runs."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__(self._look, _POLL_SECONDS)
        self._url = f"{server.status}/health"
        self.looks: list[Look] = []

    def _look(self) -> None:
        self.looks.append(Look(time.monotonic(), self._read()))

    def _read(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(self._url, timeout=10) as reply:
                health: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:  # 503: not healthy, with the same body
            health = json.load(error)
        return health
