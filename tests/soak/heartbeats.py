"""For how long each stage of a server has been silent."""

from __future__ import annotations

import threading
import time

from typing_extensions import Self

from runtime.jobs.job_table import JobTable

_POLL_SECONDS = 0.1


class HeartbeatWatch:
    """Reads all heartbeats every 0.1 s while the block runs. `longest`: each stage's longest silence, in seconds.

    A silence that ends between two reads counts up to the second one, so no silence is longer than the figure.
    """

    def __init__(self, job_table: JobTable) -> None:
        self._job_table = job_table
        self.longest = dict.fromkeys(job_table.beats(), 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def __str__(self) -> str:
        stage = max(self.longest, key=lambda name: self.longest[name])
        return f"{self.longest[stage]:.2f} s ({stage})"

    def _watch(self) -> None:
        read, beats = time.monotonic(), self._job_table.beats()
        while not self._ended.wait(_POLL_SECONDS):
            now = time.monotonic()
            for stage, beat in beats.items():
                self.longest[stage] = max(self.longest[stage], beat.age + now - read)
            read, beats = time.monotonic(), self._job_table.beats()
