"""The time that a request in OpenVINO takes longer because the one before it used another checkpoint."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.first_step import PIXELS
from benchmarks.graphs import export_graphs
from benchmarks.pairs import Samples, difference
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from runtime.settings import GIB

_BUDGET = 12 * GIB  # holds both checkpoints


def run(bench: Bench) -> Outcome:
    rounds = 2 if bench.quick else 15
    models = [bench.models.checkpoint("sd15"), bench.models.checkpoint("sd15-other")]
    artifacts = export_graphs(bench, models[0])
    settings = {"engine": "openvino", "artifacts": str(artifacts), "weights_bytes": str(_BUDGET)}
    samples: Samples = {"same": [], "swapped": []}
    with bench.server(**settings) as server:
        bench.progress("warming up: both checkpoints")
        for model in models:
            _seconds(bench, server, model)
        for number in bench.rounds(rounds):
            model = models[number % 2]  # the one before it used the other one
            samples["swapped"].append(_seconds(bench, server, model))
            samples["same"].append(_seconds(bench, server, model))
        triton = server.triton_version()
    figure = Figure(
        "SD 1.5, OpenVINO: time that a change between two checkpoints used before adds to a request",
        difference(samples["swapped"], samples["same"]),
        "s",
        at_most=0.5,
    )
    return Outcome([figure], dict(samples), {"pixels": PIXELS, "steps": 1, "weights_bytes": _BUDGET, "triton": triton})


def _seconds(bench: Bench, server: RunningServer, model: Path) -> float:
    fields = bench.requests.next(PIXELS).fields | {"num_inference_steps": 1}
    return server.timed_request(model_name=str(model), **fields)[0]
