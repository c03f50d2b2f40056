"""The peak memory of all server processes during SDXL requests, and the time of a request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from benchmarks.bench import Bench
from benchmarks.machine import memory_bytes
from benchmarks.poll_thread import PollThread
from benchmarks.results import Figure, Outcome
from benchmarks.smaps import proportional_bytes

_POLL_SECONDS = 0.5
_GIB = 1 << 30


def run(bench: Bench) -> Outcome:
    pixels, steps, requests = (64, 2, 2) if bench.quick else (512, 4, 2)
    model = bench.models.checkpoint("sdxl")
    with bench.server(precision="bfloat16") as server:
        seconds = []
        with _PeakMemory(lambda: server.processes) as peak:
            for _ in bench.rounds(requests, "request"):
                fields = bench.requests.next(pixels).fields
                taken, result = server.timed_request(model_name=str(model), num_inference_steps=steps, **fields)
                assert result.images[0].size == (pixels, pixels)
                seconds.append(taken)
        settings = {"pixels": pixels, "steps": steps, "triton": server.triton_version()}
    setup = f"SDXL, bfloat16 weights, {pixels} px"
    return Outcome(
        [
            Figure(
                f"{setup}: peak memory of all server processes",
                peak.bytes / _GIB,
                "GiB",
                at_most=round(memory_bytes() / _GIB, 1),
            ),
            Figure(f"{setup}: time of a request of {steps} steps with cached weights", seconds[-1], "s"),
        ],
        {"seconds": seconds, "peak_bytes": peak.bytes},
        settings,
    )


class _PeakMemory(PollThread):
    """The peak of the processes' total memory while the block runs, read twice a second."""

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        super().__init__(self._read, _POLL_SECONDS)
        self.bytes = 0
        self._processes = processes

    def _read(self) -> None:
        with suppress(OSError):  # a process has ended: the request reports it
            self.bytes = max(self.bytes, sum(map(proportional_bytes, self._processes())))
