"""Memory of a server in OpenVINO: of one checkpoint, and its growth over pictures of many sizes."""

from __future__ import annotations

import time
from random import Random

from benchmarks.bench import Bench
from benchmarks.graphs import export_graphs
from benchmarks.models import unet_bytes
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from runtime.engines.placement import place
from runtime.settings import load_settings

_WIDTHS, _HEIGHTS = range(64, 224, 8), range(64, 144, 8)  # 200 sizes
_FIRST = 20
_SETTLE_SECONDS = 1.0
_MB = 10**6


def run(bench: Bench) -> Outcome:
    sizes = [(width, height) for width in _WIDTHS for height in _HEIGHTS]
    Random(1).shuffle(sizes)
    # The largest is among the first: what is left is the growth with the number of sizes.
    sizes = [(_WIDTHS[-1], _HEIGHTS[-1]), *sizes[: 2 * _FIRST if bench.quick else None]]
    sizes = list(dict.fromkeys(sizes))
    model = bench.models.checkpoint("sd15")
    unet = unet_bytes(model, place(load_settings()).precision)
    artifacts = export_graphs(bench, model)
    with bench.server(engine="openvino", artifacts=str(artifacts)) as server:
        begin = _bytes(server)
        found: list[dict[str, int]] = []
        for number in bench.rounds(len(sizes), "size"):
            fields = bench.requests.next(*sizes[number]).fields | {"num_inference_steps": 1}
            server.timed_request(model_name=str(model), **fields)
            if number + 1 in (1, _FIRST, len(sizes)):
                found.append(_bytes(server))
        triton = server.triton_version()
    one, first, last = found
    return Outcome(
        [
            Figure(
                "SD 1.5, OpenVINO: denoiser's memory growth with one compiled model, relative to the UNet's size",
                (one["denoiser"] - begin["denoiser"]) / unet,
                at_most=2.2,
            ),
            Figure(
                f"SD 1.5, OpenVINO: growth of all stages' memory over {len(sizes)} sizes, after the first {_FIRST}",
                (sum(last.values()) - sum(first.values())) / _MB,
                "MB",
                at_most=300.0,
            ),
        ],
        {"begin": begin, "one": one, "first": first, "last": last},
        {"unet_bytes": unet, "triton": triton},
    )


def _bytes(server: RunningServer) -> dict[str, int]:
    """Private bytes by stage."""
    time.sleep(_SETTLE_SECONDS)
    return server.stage_private_bytes()
