"""Eight requests that come together: what stepping them in turn does for the short ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from statistics import mean
from time import perf_counter
from typing import Any

from benchmarks.bench import Bench
from benchmarks.pairs import alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.server import Serving

_LONG, _SHORT, _TOGETHER = 30, 4, 8  # the API's default steps, and those of a few-step model
_SCHEDULERS = ("DDIM", "Euler", "DPM++ 2M")


class _Mix:
    """Makes eight requests: long and short in turn, a long one first; some with guidance, some with a LoRA."""

    def __init__(self, bench: Bench, pixels: int) -> None:
        self._questions, self._pixels = bench.questions, pixels
        self._model = str(bench.models.checkpoint("sd15"))
        self._loras = [str(bench.models.lora(number)) for number in range(1)]

    def requests(self) -> list[dict[str, Any]]:
        return [self._request(number) for number in range(_TOGETHER)]

    def _request(self, number: int) -> dict[str, Any]:
        is_short = number % 2 == 1
        return self._questions.next(self._pixels).fields | {
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
        bench.tell("warming up: eight requests")
        _at_once(server, mix.requests())
        sides = {
            "at_once": lambda: _short(_at_once(server, mix.requests())),
            "one_at_a_time": lambda: _short(_one_at_a_time(server, mix.requests())),
        }
        samples = alternate(sides, bench.rounds(rounds))
        settings = {"pixels": pixels, "steps": [_LONG, _SHORT], "triton": server.triton_version()}
    figure = Figure(
        "mean latency of the four short ones / one at a time",
        ratio(samples["at_once"], samples["one_at_a_time"]),
        at_most=0.4,
    )
    return Outcome([figure], dict(samples), settings)


def _short(latencies: list[float]) -> float:
    return mean(latencies[1::2])


def _at_once(server: Serving, requests: list[dict[str, Any]]) -> list[float]:
    """Seconds from the first request's sending to each one's end, all sent together."""
    begun = perf_counter()
    jobs = [server.client.submit(request) for request in requests]

    def ended(number: int) -> float:
        jobs[number].result()
        return perf_counter() - begun

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(ended, range(len(jobs))))


def _one_at_a_time(server: Serving, requests: list[dict[str, Any]]) -> list[float]:
    """Seconds from the first request's sending to each one's end, each sent when the one before has ended."""
    begun = perf_counter()
    ends = []
    for request in requests:
        server.client.image_to_image(request)
        ends.append(perf_counter() - begun)
    return ends
