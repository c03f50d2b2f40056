"""The heartbeat of a stage: a thread that writes the stage's state to the job table, for the supervisor.

It also ends the process when tritonserver, its parent, has ended: a stub alone would wait for it for minutes.
"""

from __future__ import annotations

import os
import threading

from runtime.jobs.activity import Activity, Worker
from runtime.jobs.job_table import JobTable
from runtime.jobs.long_lived import end_process, start_thread

BEAT_SECONDS = 0.2


class Heart:
    """Beats until `stop`. `workers`: set when the stage is ready."""

    def __init__(self, job_table: JobTable, stage: str) -> None:
        self._job_table, self._stage = job_table, stage
        self._workers: tuple[Worker, ...] | None = None
        self._parent = os.getppid()
        self._idle_beats = 0
        self._stopping = threading.Event()
        start_thread(self._run, "heart")

    def ready(self, workers: tuple[Worker, ...]) -> None:
        """The stage is ready; its workers' activity is part of each heartbeat from now on."""
        self._workers = workers

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        while True:
            if os.getppid() != self._parent:
                end_process()
            activity = Activity.of(self._workers or ())
            # Consecutive beats, not seconds: a process that was stopped for a while has not been idle.
            self._idle_beats = self._idle_beats + 1 if activity.queued and not activity.longest else 0
            self._job_table.heartbeats.write(
                self._stage,
                os.getpid(),
                ready=self._workers is not None,
                activity=activity,
                idle_beats=self._idle_beats,
            )
            if self._stopping.wait(BEAT_SECONDS):
                return
