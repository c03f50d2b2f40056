"""The time of a whole request in OpenVINO, for models of any size and of one size, relative to diffusers.

A request cannot gain more than its forward passes do. So its speed-up is also given relative to theirs, which the case
`engines` measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.bare_engines import VARIANTS
from benchmarks.bench import Bench
from benchmarks.cases.engines import forwards_speedup
from benchmarks.diffusers_baseline import DiffusersBaseline
from benchmarks.graphs import export_graphs
from benchmarks.lora_requests import LoraRequests
from benchmarks.pairs import Samples, alternate, ratio
from benchmarks.results import Figure, Outcome, read_result
from benchmarks.running_server import RunningServer
from benchmarks.subprocess_object import SubprocessObject

_LORAS = 2
_NETWORK_STAGES = ("text_encoder", "vae_encoder", "denoiser", "vae_decoder")
_OF_THE_FORWARDS = 0.93  # part of the forward passes' speed-up that a request keeps


def run(bench: Bench) -> Outcome:
    pixels, steps, rounds = (64, 4, 2) if bench.quick else (512, 8, 3)
    forwards = _forwards(bench, pixels)
    model = bench.models.checkpoint("sd15")
    loras = [bench.models.lora(number) for number in range(_LORAS)]
    artifacts = export_graphs(bench, model)
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    settings: dict[str, Any] = {"pixels": pixels, "steps": steps}
    for variant in VARIANTS[1:]:
        size = f"{pixels}x{pixels}" if variant == VARIANTS[2] else ""
        requests = LoraRequests(bench, model, loras, pixels, steps)
        with (
            bench.server(engine="openvino", artifacts=str(artifacts), static_shapes=size) as server,
            SubprocessObject(DiffusersBaseline, model) as diffusers,
        ):
            diffusers.call("keep_fused", loras)
            samples = _measure(bench, server, diffusers, requests, rounds)
            settings |= {"baseline": diffusers.call("about"), "triton": server.triton_version()}
        stages = requests.stages[-rounds:]  # without the warm-up
        setup = f"SD 1.5, {pixels} px, {steps} steps, {_LORAS} LoRAs, {variant}"
        figures += _figures(setup, samples, stages, forwards_speedup(forwards, variant, steps))
        raw[variant] = samples | {"stages": stages}
    return Outcome(figures, raw, settings)


def _forwards(bench: Bench, pixels: int) -> dict[str, Samples]:
    """Network -> the seconds of its calls by variant. Raises FileNotFoundError until `engines` has a result."""
    path = bench.results / "engines.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: not found; measure the case engines first")
    result = read_result(path)
    assert result["settings"]["pixels"] == pixels, f"{path} is of {result['settings']['pixels']} px, not {pixels}"
    return {kind: measured["seconds"] for kind, measured in result["raw"].items()}


def _measure(
    bench: Bench, server: RunningServer, diffusers: SubprocessObject, requests: LoraRequests, rounds: int
) -> Samples:
    """Alternate requests. The LoRAs are in use since the warm-up."""
    variants = {
        "ours": lambda: requests.seconds(server),
        "diffusers": lambda: diffusers.call("generate", requests.next(), requests.steps),
    }
    bench.progress("warming up: the server, diffusers")
    alternate(variants, range(1))
    return alternate(variants, bench.rounds(rounds))


def _figures(setup: str, samples: Samples, stages: Sequence[Mapping[str, float]], forwards: float) -> list[Figure]:
    """`stages`: of each request, seconds by stage. `forwards`: the speed-up of the forward passes alone."""
    faster = ratio(samples["diffusers"], samples["ours"])
    seconds = {stage: median(timings[stage] for timings in stages) for stage in _NETWORK_STAGES}
    return [
        Figure(f"{setup}: request time of diffusers, relative to ours", faster),
        Figure(f"{setup}: forward passes alone in torch, relative to OpenVINO", forwards),
        Figure(
            f"{setup}: speed-up of the request, relative to that of its forward passes",
            faster / forwards,
            at_least=_OF_THE_FORWARDS,
        ),
        *(Figure(f"{setup}: time in the stage {stage}", value, "s") for stage, value in seconds.items()),
    ]
