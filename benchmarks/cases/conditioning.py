"""A denoising step in OpenVINO with an IP-Adapter, relative to one without; with a ControlNet, relative to bare calls.

A step lasts from the end of the one before it to its own end, as the job table shows them. So its time includes what
the denoiser does between the calls. The first step of a request and the first of several bare calls are not measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.bare_engines import BareEngine
from benchmarks.bench import Bench
from benchmarks.cases.engines import ROWS
from benchmarks.graphs import export_graphs
from benchmarks.pairs import Samples, alternate, ratio
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from benchmarks.step_watch import StepWatch
from benchmarks.subprocess_object import SubprocessObject

_BARE_CALLS = 3  # in a row


def run(bench: Bench) -> Outcome:
    pixels, steps, rounds = (64, 40, 2) if bench.quick else (512, 5, 7)
    model, controlnet = bench.models.checkpoint("sd15"), bench.models.adapter("controlnet")
    adapter, encoder = bench.models.adapter("ip_adapter"), bench.models.adapter("image_encoder")
    artifacts = export_graphs(bench, model, controlnet, adapter, encoder)
    common = {"model_name": str(model), "num_inference_steps": steps}

    def picture() -> bytes:
        return bench.requests.next(pixels).image

    def seconds(server: RunningServer, **fields: Any) -> float:
        return _step_seconds(server, bench.requests.next(pixels).fields | common | fields)

    def with_ip_adapter(server: RunningServer) -> float:
        prompt = {"path": str(adapter), "ip_adapter_image_url": picture()}
        return seconds(server, ip_adapter=[prompt], image_encoder_path=str(encoder))

    def with_controlnet(server: RunningServer) -> float:
        return seconds(server, controlnets=[{"path": str(controlnet), "image_url": picture()}])

    with bench.server(engine="openvino", artifacts=str(artifacts)) as server, ExitStack() as running:
        variants: dict[str, Callable[[], float]] = {
            "without": partial(seconds, server),
            "IP-Adapter": partial(with_ip_adapter, server),
            "ControlNet": partial(with_controlnet, server),
            **_bare_calls(running, model, controlnet, artifacts, pixels),
        }
        bench.progress("warming up: each kind of request, bare calls")
        alternate(variants, range(1))
        samples = alternate(variants, bench.rounds(rounds))
        settings = {"pixels": pixels, "steps": steps, "triton": server.triton_version()}
    return Outcome(figures(samples, f"SD 1.5, {pixels} px, OpenVINO"), dict(samples), settings)


def figures(samples: Samples, setup: str) -> list[Figure]:
    """`samples`: the seconds of a step of each kind of request, and of a bare call of each network."""
    calls = median(samples["UNet call"]) + median(samples["ControlNet call"])
    return [
        Figure(
            f"{setup}: a step with one IP-Adapter, relative to a step without",
            ratio(samples["IP-Adapter"], samples["without"]),
            at_most=1.03,
        ),
        Figure(
            f"{setup}: a step with one ControlNet, relative to bare calls of UNet and ControlNet",
            median(samples["ControlNet"]) / calls,
            at_most=1.05,
        ),
    ]


def _bare_calls(
    running: ExitStack, model: Path, controlnet: Path, artifacts: Path, pixels: int
) -> dict[str, Callable[[], float]]:
    """Calls of the rows of a request with guidance. Each network has a process, which ends with `running`."""
    threads, rows = len(os.sched_getaffinity(0)), ROWS["unet"]
    unet = (model, artifacts, "unet", "openvino", rows, pixels, threads)
    control = (model, artifacts, "controlnet", "openvino", rows, pixels, threads, (), controlnet)
    engines = {name: SubprocessObject(BareEngine, *of) for name, of in (("UNet", unet), ("ControlNet", control))}
    return {f"{name} call": partial(_call_seconds, running.enter_context(engine)) for name, engine in engines.items()}


def _call_seconds(engine: SubprocessObject) -> float:
    """The mean time of bare calls in a row, without the first one."""
    seconds: list[float] = [engine.call("seconds", 1) for _ in range(_BARE_CALLS)]
    return mean(seconds[1:])


def _step_seconds(server: RunningServer, fields: dict[str, Any]) -> float:
    """The mean time of a step of a request, without its first one."""
    job = server.client.submit(fields)
    seconds = StepWatch(server.job_table, server.admitted(job)).to_the_end()
    assert job.result().response.receipt.engine.name == "openvino"
    return seconds
