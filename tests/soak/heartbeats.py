"""For how long each stage of a server has been silent."""

from __future__ import annotations

import time

from benchmarks.poll_thread import PollThread
from runtime.jobs.job_table import JobTable

_POLL_SECONDS = 0.1


class HeartbeatWatch(PollThread):
    """Reads all heartbeats every 0.1 s while the block runs. `longest`: each stage's longest silence, in seconds.

    A silence that ends between two reads counts up to the second one, so no silence is longer than the figure.
    """

    def __init__(self, job_table: JobTable) -> None:
        super().__init__(self._measure, _POLL_SECONDS)
        self._job_table = job_table
        self._read()
        self.longest = dict.fromkeys(self._beats, 0.0)

    def __str__(self) -> str:
        stage = max(self.longest, key=lambda name: self.longest[name])
        return f"{self.longest[stage]:.2f} s ({stage})"

    def _read(self) -> None:
        self._read_at, self._beats = time.monotonic(), self._job_table.heartbeats.read()

    def _measure(self) -> None:
        now = time.monotonic()
        for stage, beat in self._beats.items():
            self.longest[stage] = max(self.longest[stage], beat.age + now - self._read_at)
        self._read()
