"""Throughput and latency under load, by NVIDIA's perf_analyzer, over both protocols."""

from __future__ import annotations

import base64
import csv
import json
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.inputs import Question
from benchmarks.results import Figure, Outcome
from benchmarks.server import Serving
from runtime.settings import demo_folder, tools_folder

_PIXELS, _STEPS = 128, 4
_PROTOCOLS, _CONCURRENCY = ("grpc", "http"), (1, 2, 4, 8)
_MODEL = "lora_image_to_image"


def run(bench: Bench) -> Outcome:
    requests = 8 if bench.quick else 48
    levels = list(product(_CONCURRENCY, _PROTOCOLS))
    with bench.server(local_paths=str(demo_folder())) as server:
        bench.tell("warming up: a server")
        server.ask(num_inference_steps=1, model_name="scenes", **bench.questions.next(_PIXELS).fields)
        found = [_measure(bench, server, *levels[number], requests) for number in bench.rounds(len(levels), "level")]
        settings = {"pixels": _PIXELS, "steps": _STEPS, "requests": requests, "triton": server.triton_version()}
    figures = []
    for level in found:
        name = f"{level['protocol']}, {level['concurrency']} at once"
        figures.append(Figure(f"{name}: requests a second", level["per_second"], "/s"))
        figures.append(Figure(f"{name}: median latency", level["p50_seconds"], "s"))
    return Outcome(figures, {"levels": found}, settings)


def _measure(bench: Bench, server: Serving, concurrency: int, protocol: str, requests: int) -> dict[str, Any]:
    """One level: requests a second, and the latency's median and 95th percentile."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    questions = [bench.questions.next(_PIXELS) for _ in range(requests)]
    data, report = folder / "data.json", folder / "report.csv"
    data.write_text(json.dumps({"data": [_entry(question) for question in questions]}))
    address = {"grpc": server.grpc, "http": server.http}[protocol].partition("://")[2]
    command = [str(tools_folder() / "bin" / "perf_analyzer"), "-m", _MODEL, "-i", protocol, "-u", address]
    command += ["--input-data", str(data), "--concurrency-range", str(concurrency)]
    command += ["--request-count", str(requests), "-f", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return {"protocol": protocol, "concurrency": concurrency, **read_report(report.read_text())}


def _entry(question: Question) -> dict[str, Any]:
    """A request as perf_analyzer's input data has it."""
    fields = question.fields
    picture = base64.b64encode(fields.pop("image_url")).decode()
    fields |= {"image_url": f"data:image/png;base64,{picture}", "model_name": "scenes", "num_inference_steps": _STEPS}
    return {"REQUEST": {"content": [json.dumps(fields)], "shape": [1]}}


def read_report(text: str) -> dict[str, float]:
    """The figures of perf_analyzer's CSV report of one level; it has microseconds."""
    (row,) = csv.DictReader(text.strip().splitlines())
    return {
        "per_second": float(row["Inferences/Second"]),
        "p50_seconds": float(row["p50 latency"]) / 1e6,
        "p95_seconds": float(row["p95 latency"]) / 1e6,
    }
