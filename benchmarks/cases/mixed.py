"""The latency of short requests that arrive together with long ones, relative to running all one at a time."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.bench import Bench
from benchmarks.many_requests import at_once, one_at_a_time
from benchmarks.pairs import alternate, ratio
from benchmarks.results import Figure, Outcome

_LONG, _SHORT, _TOGETHER = 30, 4, 8  # steps: the API's default, and a few-step model's; requests
_SCHEDULERS = ("DDIM", "Euler", "DPM++ 2M")


class _Mix:
    """Creates eight requests, long and short in turn, a long one first. Long ones have guidance, some have a LoRA."""

    def __init__(self, bench: Bench, pixels: int) -> None:
        self._inputs, self._pixels = bench.requests, pixels
        self._model = str(bench.models.checkpoint("sd15"))
        self._loras = [str(bench.models.lora(number)) for number in range(1)]

    def requests(self) -> list[dict[str, Any]]:
        return [self._request(number) for number in range(_TOGETHER)]

    def _request(self, number: int) -> dict[str, Any]:
        is_short = number % 2 == 1
        return self._inputs.next(self._pixels).fields | {
            "model_name": self._model,
            "num_inference_steps": _SHORT if is_short else _LONG,
            "guidance_scale": 1.0 if is_short else 7.5,
            "scheduler": _SCHEDULERS[number % len(_SCHEDULERS)],
            "loras": [{"path": path} for path in self._loras[: number % 4 // 2]],
        }


def run(bench: Bench) -> Outcome:
    pixels, rounds = (64, 2) if bench.quick else (128, 3)
    mix = _Mix(bench, pixels)
    with bench.server() as server:
        bench.progress("warming up: eight requests")
        at_once(server, mix.requests())
        variants = {
            "at_once": lambda: _short(at_once(server, mix.requests())),
            "one_at_a_time": lambda: _short(one_at_a_time(server, mix.requests())),
        }
        samples = alternate(variants, bench.rounds(rounds))
        settings = {"pixels": pixels, "steps": [_LONG, _SHORT], "triton": server.triton_version()}
    figure = Figure(
        "Eight concurrent requests: mean latency of the four short ones, relative to running all eight one at a time",
        ratio(samples["at_once"], samples["one_at_a_time"]),
        at_most=0.4,
    )
    return Outcome([figure], dict(samples), settings)


def _short(latencies: list[float]) -> float:
    return mean(latencies[1::2])
