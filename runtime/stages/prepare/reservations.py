"""What a job holds while it is in flight: its files in the store, memory for its pictures, and its plan file."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from runtime.files.blob_locks import Pins
from runtime.jobs.job_table import JobRef, JobTable
from runtime.jobs.long_lived import start_thread
from runtime.jobs.plan_files import PlanFiles
from runtime.stage_errors import InvalidArgument, Unavailable
from runtime.stages.prepare.memory_estimate import Need

_SWEEP_SECONDS = 1.0  # how often what ended jobs hold is released


@dataclass(frozen=True)
class _Held:
    pins: Pins
    own: int  # bytes


class Reservations:
    """Within `budget` bytes of memory. A thread releases what ended and lost jobs hold."""

    def __init__(self, job_table: JobTable, budget: int) -> None:
        self._job_table, self._plans, self._budget = job_table, PlanFiles(job_table), budget
        self._held: dict[JobRef, _Held] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        start_thread(self._sweep, "reservations")

    def close(self) -> None:
        self._closed.set()

    def hold(self, job: JobRef, pins: Pins, need: Need, plan: bytes) -> None:
        """Reserve what the job needs, and write its plan.

        Raises InvalidArgument when the job can never fit, Unavailable when other jobs use the memory it needs.
        """
        wanted = need.own + need.peak
        with self._lock:
            self._release_ended()
            if wanted > self._budget:
                needs, has = wanted / 1e9, self._budget / 1e9
                message = f"its pictures need about {needs:.1f} GB of memory, the server has {has:.1f} GB"
                raise InvalidArgument("", f"{message} (LORIKEET_MEMORY_BYTES): ask for fewer or smaller pictures")
            if sum(held.own for held in self._held.values()) + wanted > self._budget:
                raise Unavailable("other requests in flight use the memory that this one needs: try again later")
            try:
                self._plans.write(job, plan)
            except OSError as error:
                raise Unavailable(f"the server cannot write the plan ({error.strerror}): try again later") from error
            self._held[job] = _Held(pins, need.own)

    def _release_ended(self) -> None:
        live = set(self._job_table.live())
        ended = self._held.keys() - live
        self._plans.remove(ended)
        for job in ended:
            self._held.pop(job).pins.release()

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_SECONDS):
            with self._lock:
                self._release_ended()
