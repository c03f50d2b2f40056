"""Eight requests with eight LoRAs in OpenVINO, relative to the same LoRA in all, and to one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bench import Bench
from benchmarks.graphs import export_graphs
from benchmarks.many_requests import at_once, one_at_a_time
from benchmarks.models import RANK
from benchmarks.pairs import Samples, alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer

_TOGETHER = 8
_STEPS = {64: 8, 512: 2}  # by the picture's side


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 3
    model = bench.models.checkpoint("sd15")
    loras = [str(bench.models.lora(number).relative_to(bench.models.folder)) for number in range(_TOGETHER)]
    artifacts = export_graphs(bench, model)
    figures: list[Figure] = []
    raw: dict[str, Samples] = {}
    with bench.server(engine="openvino", artifacts=str(artifacts)) as server:
        for pixels in list(_STEPS)[: 1 if bench.quick else None]:
            bench.progress(f"warming up: {pixels} px")
            at_once(server, _requests(bench, str(model), loras, pixels))
            raw[str(pixels)] = samples = _measure(bench, server, str(model), loras, pixels, rounds)
            figures += _figures(samples, pixels)
        triton = server.triton_version()
    return Outcome(figures, raw, {"steps": _STEPS, "rank": RANK, "triton": triton})


def _measure(
    bench: Bench, server: RunningServer, model: str, loras: Sequence[str], pixels: int, rounds: int
) -> Samples:
    """Seconds until the last of eight requests has ended."""

    def last(send: Callable[..., list[float]], used: Sequence[str]) -> float:
        return max(send(server, _requests(bench, model, used, pixels)))

    variants = {
        "eight LoRAs": lambda: last(at_once, loras),
        "one LoRA": lambda: last(at_once, [loras[0]] * _TOGETHER),
        "one at a time": lambda: last(one_at_a_time, loras),
    }
    return alternate(variants, bench.rounds(rounds))


def _requests(bench: Bench, model: str, loras: Sequence[str], pixels: int) -> list[dict[str, Any]]:
    return [
        bench.requests.next(pixels).fields
        | {"model_name": model, "num_inference_steps": _STEPS[pixels], "loras": [{"path": path}]}
        for path in loras
    ]


def _figures(samples: Samples, pixels: int) -> list[Figure]:
    setup = f"SD 1.5, {pixels} px, OpenVINO: eight requests at once with eight LoRAs of rank {RANK}"
    return [
        Figure(f"{setup}, relative to the same LoRA", ratio(samples["eight LoRAs"], samples["one LoRA"]), at_most=1.05),
        Figure(
            f"{setup}, relative to one at a time", ratio(samples["eight LoRAs"], samples["one at a time"]), at_most=1.02
        ),
    ]
