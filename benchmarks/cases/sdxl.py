"""SDXL through all stages, and the memory that all of them together take at most."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from typing_extensions import Self

from benchmarks.bench import Bench
from benchmarks.machine import memory_bytes
from benchmarks.results import Figure, Outcome
from benchmarks.smaps import proportional_bytes

_LOOK_SECONDS = 0.5
_GIB = 1 << 30


def run(bench: Bench) -> Outcome:
    pixels, steps, requests = (64, 2, 2) if bench.quick else (512, 4, 2)
    model = bench.models.checkpoint("sdxl")
    with bench.server(precision="bfloat16") as server:
        seconds = []
        with _Peak(lambda: server.processes) as peak:
            for _ in bench.rounds(requests, "request"):
                fields = bench.questions.next(pixels).fields
                taken, result = server.ask(model_name=str(model), num_inference_steps=steps, **fields)
                assert result.images[0].size == (pixels, pixels)
                seconds.append(taken)
        settings = {"pixels": pixels, "steps": steps, "triton": server.triton_version()}
    return Outcome(
        [
            Figure(
                "memory of all processes, at most", peak.bytes / _GIB, "GiB", at_most=round(memory_bytes() / _GIB, 1)
            ),
            Figure(f"a request of {steps} steps, weights in memory", seconds[-1], "s"),
        ],
        {"seconds": seconds, "peak_bytes": peak.bytes},
        settings,
    )


class _Peak:
    """The most memory that processes took together while the block ran, looked at twice a second."""

    def __init__(self, processes: Callable[[], list[int]]) -> None:
        self.bytes = 0
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with suppress(OSError):  # one has ended: the request says so
                self.bytes = max(self.bytes, sum(map(proportional_bytes, self._processes())))
