"""The plans of a server's jobs, as files beside the job table that only this user can read."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from runtime.jobs.job_table import JobRef, JobTable


class PlanFiles:
    """One file for each job, named by the job's id. `prepare` writes and removes it; the other stages read it."""

    def __init__(self, job_table: JobTable) -> None:
        self._folder = job_table.path.with_name(f"{job_table.path.name}-plans")
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def write(self, job: JobRef, plan: bytes) -> None:
        """Raises OSError."""
        descriptor = os.open(self._path(job), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(plan)

    def read(self, job: JobRef) -> bytes:
        """Raises FileNotFoundError when the job has ended."""
        return self._path(job).read_bytes()

    def remove(self, jobs: Collection[JobRef]) -> None:
        for job in jobs:
            self._path(job).unlink(missing_ok=True)

    def _path(self, job: JobRef) -> Path:
        return self._folder / f"{job.id:016x}.json"
