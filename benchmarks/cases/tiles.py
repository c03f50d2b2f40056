"""A large picture in tiles: the stages' peak memory, and how long a small request waits for its tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import Any

from benchmarks.bench import Bench
from benchmarks.poll_thread import PollThread
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from benchmarks.smaps import anonymous_bytes
from benchmarks.step_watch import is_past
from runtime.jobs.job_table import JobRef, JobTable, State

_STAGES = {"vae_encoder": "VAE encoder", "denoiser": "denoiser", "vae_decoder": "VAE decoder"}  # in the chain's order
_MEMORY_SECONDS = 0.01
_POLL_SECONDS = 0.002
_SMALL, _SMALL_STEPS = 64, 4  # pixels; a step is one UNet call


@dataclass(frozen=True)
class _Sizes:
    """Pixels: of the large picture, of its tiles, and between the UNet's tiles."""

    picture: int
    tile: int
    stride: int

    @property
    def fields(self) -> dict[str, int]:
        tile, stride = self.tile, self.stride
        sides = {"tile_width": tile, "tile_height": tile, "tile_stride_width": stride, "tile_stride_height": stride}
        return {**sides, "num_inference_steps": 1}

    def calls(self, stage: str) -> int:
        """Engine calls of a request with guidance for the large picture."""
        along = (
            (self.picture - self.tile) / self.stride + 1 if stage == "denoiser" else self.picture / (self.tile * 0.75)
        )
        return ceil(along) ** 2


def run(bench: Bench) -> Outcome:
    sizes = _Sizes(256, 128, 96) if bench.quick else _Sizes(2048, 512, 384)
    model = {"model_name": str(bench.models.checkpoint("sd15"))}

    def request(pixels: int, **fields: int) -> dict[str, Any]:
        return bench.requests.next(pixels).fields | model | fields

    with bench.server() as server:
        bench.progress("warming up: one request of a tile's size")
        server.timed_request(**request(sizes.tile, num_inference_steps=1))
        peaks, waits = {}, {}
        bench.progress("peak memory of the large picture, and of one of a tile's size")
        for name, fields in (
            ("tile", request(sizes.tile, num_inference_steps=1)),
            ("large", request(sizes.picture, **sizes.fields)),
        ):
            with _PeakMemory(server.stages) as peak:
                server.timed_request(**fields)
            peaks[name] = peak.bytes
        for place in bench.rounds(len(_STAGES), "stage in which a small request waits"):
            stage = list(_STAGES)[place]
            small = request(_SMALL, num_inference_steps=_SMALL_STEPS)
            waits[stage] = _wait(server, stage, sizes, request(sizes.picture, **sizes.fields), small)
        triton = server.triton_version()
    setup = f"SD 1.5, {sizes.picture} px in tiles of {sizes.tile} px"
    figures = [
        Figure(
            f"{setup}: peak memory of the {name}, relative to {sizes.tile} px",
            peaks["large"][stage] / peaks["tile"][stage],
            at_most=1.5,
        )
        for stage, name in _STAGES.items()
    ]
    # A call may also wait for a part of the call that runs when the request arrives, and other stages use the cores.
    figures += [
        Figure(
            f"{setup}: tiles for which each call of a small request in the {name} waits",
            waits[stage].tiles,
            at_most=1.1,
        )
        for stage, name in _STAGES.items()
    ]
    raw = {"peak_bytes": peaks, "waits": {stage: vars(wait) for stage, wait in waits.items()}}
    return Outcome(figures, raw, {**vars(sizes), "small": _SMALL, "small_steps": _SMALL_STEPS, "triton": triton})


class _PeakMemory(PollThread):
    """The peak memory of each stage while the block runs."""

    def __init__(self, stages: Mapping[str, int]) -> None:
        super().__init__(self._read, _MEMORY_SECONDS)
        self._stages = {stage: stages[stage] for stage in _STAGES}
        self.bytes = dict.fromkeys(_STAGES, 0)

    def _read(self) -> None:
        for stage, pid in self._stages.items():
            with suppress(OSError):  # the process has ended: the request reports it
                self.bytes[stage] = max(self.bytes[stage], anonymous_bytes(pid))


@dataclass(frozen=True)
class _Wait:
    """Seconds of a small request in a stage, those of its own calls and load, and those of one tile; its calls."""

    seconds: float
    own: float
    tile: float
    calls: int

    @property
    def tiles(self) -> float:
        """Tiles for which each of its calls waited. The call that runs when it arrives counts as one more."""
        return (self.seconds - self.own) / self.tile / (self.calls + 1)


def _wait(server: RunningServer, stage: str, sizes: _Sizes, large: dict[str, Any], small: dict[str, Any]) -> _Wait:
    """Send the small request while the stage works on the large one."""
    table = server.job_table
    tiled = server.client.submit(large)
    first = server.admitted(tiled)
    _until(lambda: _runs(table, first, stage) or is_past(table, first, stage))
    short = server.client.submit(small)
    second = server.admitted(short)
    begun = _until(lambda: table.has_seen(second, stage))
    ended = _until(lambda: is_past(table, second, stage))
    own, tiles = short.result().timings, tiled.result().timings
    load = f"{stage}_load"
    if stage == "denoiser":  # its time does not include its load
        return _Wait(ended - begun, own[stage] + own[load], tiles[stage] / sizes.calls(stage), _SMALL_STEPS)
    return _Wait(ended - begun, own[stage], (tiles[stage] - tiles[load]) / sizes.calls(stage), 1)


def _runs(table: JobTable, job: JobRef, stage: str) -> bool:
    progress = table.progress(job)
    return progress.stage == stage and progress.state == State.RUNNING


def _until(done: Callable[[], bool]) -> float:
    """Poll until `done()`; the monotonic time."""
    while not done():
        time.sleep(_POLL_SECONDS)
    return time.monotonic()
