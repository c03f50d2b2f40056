"""Requests per second and latency under load, measured by NVIDIA's perf_analyzer over gRPC and HTTP."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from benchmarks.unique_requests import UniqueRequest
from runtime.settings import demo_folder, tools_folder

_PIXELS, _STEPS = 128, 4
_PROTOCOLS, _CONCURRENCY = {"grpc": "gRPC", "http": "HTTP"}, (1, 2, 4, 8)
_FIGURES = ("per_second", "p50_seconds", "p95_seconds")  # of a level
_MODEL = "lora_image_to_image"


def run(bench: Bench) -> Outcome:
    rounds, request_count = (1, 8) if bench.quick else (3, 48)
    levels = list(product(_CONCURRENCY, _PROTOCOLS))
    with bench.server(local_paths=str(demo_folder())) as server:
        bench.progress("warming up: the server")
        server.timed_request(num_inference_steps=1, model_name="scenes", **bench.requests.next(_PIXELS).fields)
        # All levels in each round: a machine that becomes slower meanwhile changes no ratio of levels.
        samples = [
            _measure(bench, server, *levels[number % len(levels)], request_count)
            for number in bench.rounds(rounds * len(levels), "level")
        ]
        triton = server.triton_version()
    settings = {"pixels": _PIXELS, "steps": _STEPS, "requests": request_count, "rounds": rounds, "triton": triton}
    measured = [_median(samples, concurrency, protocol) for concurrency, protocol in levels]
    setup, figures = f"Demo model, {_PIXELS} px, {_STEPS} steps", []
    for level in measured:
        name = f"{setup}, {_PROTOCOLS[level['protocol']]}, concurrency {level['concurrency']}"
        figures.append(Figure(f"{name}: requests per second", level["per_second"], "/s"))
        figures.append(Figure(f"{name}: median latency", level["p50_seconds"], "s"))
    figures += [_gain(f"{setup}, {title}", measured, protocol) for protocol, title in _PROTOCOLS.items()]
    return Outcome(figures, {"levels": measured, "samples": samples}, settings)


def _median(samples: list[dict[str, Any]], concurrency: int, protocol: str) -> dict[str, Any]:
    """A level's figures: the median of each over the rounds."""
    own = [sample for sample in samples if (sample["concurrency"], sample["protocol"]) == (concurrency, protocol)]
    figures = {name: median(sample[name] for sample in own) for name in _FIGURES}
    return {"protocol": protocol, "concurrency": concurrency, **figures}


def _gain(setup: str, levels: list[dict[str, Any]], protocol: str) -> Figure:
    """Concurrent requests must not reduce the throughput."""
    rates = {level["concurrency"]: level["per_second"] for level in levels if level["protocol"] == protocol}
    alone, together = _CONCURRENCY[0], _CONCURRENCY[-1]
    label = f"{setup}: requests per second at concurrency {alone}, relative to concurrency {together}"
    return Figure(label, rates[alone] / rates[together], at_most=1.0)


def _measure(
    bench: Bench, server: RunningServer, concurrency: int, protocol: str, request_count: int
) -> dict[str, Any]:
    """Measure one level: requests per second, and the latency's median and 95th percentile in seconds."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    requests = [bench.requests.next(_PIXELS) for _ in range(request_count)]
    data, report = folder / "data.json", folder / "report.csv"
    data.write_text(json.dumps({"data": [_entry(request) for request in requests]}))
    address = {"grpc": server.grpc, "http": server.http}[protocol].partition("://")[2]
    command = [str(tools_folder() / "bin" / "perf_analyzer"), "-m", _MODEL, "-i", protocol, "-u", address]
    command += ["--input-data", str(data), "--concurrency-range", str(concurrency)]
    command += ["--request-count", str(request_count), "-f", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return {"protocol": protocol, "concurrency": concurrency, **read_report(report.read_text())}


def _entry(request: UniqueRequest) -> dict[str, Any]:
    """A request in perf_analyzer's input format."""
    fields = request.fields
    picture = base64.b64encode(fields.pop("image_url")).decode()
    fields |= {"image_url": f"data:image/png;base64,{picture}", "model_name": "scenes", "num_inference_steps": _STEPS}
    return {"REQUEST": {"content": [json.dumps(fields)], "shape": [1]}}


def read_report(text: str) -> dict[str, float]:
    """The figures of perf_analyzer's CSV report of one level, which has microseconds; here seconds."""
    (row,) = csv.DictReader(text.strip().splitlines())
    return {
        "per_second": float(row["Inferences/Second"]),
        "p50_seconds": float(row["p50 latency"]) / 1e6,
        "p95_seconds": float(row["p95 latency"]) / 1e6,
    }
