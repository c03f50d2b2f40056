"""What a job holds while it is in flight: its files in the store, memory for its tensors, and its plan file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from runtime import shared_memory
from runtime.files.blob_locks import Pins
from runtime.jobs.job_table import JobRef, JobTable
from runtime.jobs.long_lived import start_thread
from runtime.jobs.plan_files import PlanFiles
from runtime.shared_memory import SharedMemory
from runtime.stage_errors import InvalidArgument, Unavailable
from runtime.stages.prepare.memory_estimate import Need
from runtime.stages.prepare.shared_memory_estimate import growth

_SWEEP_SECONDS = 1.0  # how often what ended jobs hold is released
_MINIMUM_RESERVE = 4 << 20  # bytes of /dev/shm that stay free for requests that arrive, so that they can be answered
_RESERVE_SHARE = 16  # one part in 16 of a larger /dev/shm


@dataclass(frozen=True)
class _Held:
    pins: Pins
    need: Need


class Reservations:
    """Within `budget` bytes of memory, and what /dev/shm has free. A thread releases what ended and lost jobs hold.

    `measure` measures /dev/shm.
    """

    def __init__(self, job_table: JobTable, budget: int, measure: Callable[[], SharedMemory] | None = None) -> None:
        self._job_table, self._plans, self._budget = job_table, PlanFiles(job_table), budget
        self._measure = measure or self._measure_shared_memory
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
        with self._lock:
            self._release_ended()
            self._check_memory(need)
            self._check_shared_memory(need)
            try:
                self._plans.write(job, plan)
            except OSError as error:
                raise Unavailable(f"the server cannot write the plan ({error.strerror}): try again later") from error
            self._held[job] = _Held(pins, need)

    def _check_memory(self, need: Need) -> None:
        wanted = need.own + need.peak
        if wanted > self._budget:
            needs, has = wanted / 1e9, self._budget / 1e9
            message = f"its pictures need about {needs:.1f} GB of memory, the server has {has:.1f} GB"
            raise InvalidArgument("", f"{message} (LORIKEET_MEMORY_BYTES): ask for fewer or smaller pictures")
        # A request in flight may be in the network that takes the most while this one is in the server.
        in_flight = [need, *(held.need for held in self._held.values())]
        if sum(one.own for one in in_flight) + max(one.peak for one in in_flight) > self._budget:
            raise Unavailable("other requests in flight use the memory that this one needs: try again later")

    def _check_shared_memory(self, need: Need) -> None:
        memory = self._measure()
        reserve = max(_MINIMUM_RESERVE, memory.total // _RESERVE_SHARE)
        advice = "ask for fewer or smaller pictures, or start the server with a larger /dev/shm (docker run --shm-size)"
        alone, most = growth([need.stages], {}), max(memory.total - memory.new_regions - reserve, 0)
        if alone > most:
            message = f"its tensors need about {_megabytes(alone)} of shared memory, the server has {_megabytes(most)}"
            raise InvalidArgument("", f"{message}: {advice}")
        together = growth([*(held.need.stages for held in self._held.values()), need.stages], memory.regions)
        free = max(memory.free - reserve, 0)
        # A request that fits into new regions is taken even where others will need more than there is.
        if alone == 0 or together <= free:
            return
        if not self._held and alone <= free + memory.grown:
            shared_memory.ask_for_new_regions(self._job_table.path)
            message = "earlier requests have used up its shared memory; it restarts to free it"
            raise Unavailable(f"the server is restarting: {message}: try again in a minute")
        needs = f"this request and those in flight need about {_megabytes(together)} more, {_megabytes(free)} are free"
        raise Unavailable(f"the server lacks shared memory: {needs}: try again later, {advice}")

    def _measure_shared_memory(self) -> SharedMemory:
        return shared_memory.measure({stage: beat.pid for stage, beat in self._job_table.heartbeats.read().items()})

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


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
