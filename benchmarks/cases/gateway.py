"""What the gateway adds to a request, how soon a submit starts, and how fast it answers while many requests wait."""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.pairs import Samples, alternate, difference
from benchmarks.results import Figure, Outcome
from benchmarks.running_server import RunningServer
from deploy.local_gateway import LocalGateway
from runtime.settings import demo_folder

_APPLICATION = "/queue/fal-ai/lora"
_RUN, _SUBMIT = "/run/fal-ai/lora/image-to-image", f"{_APPLICATION}/image-to-image"
_BODY = {"model_name": "scenes", "prompt": "a large red fish on the sea", "num_inference_steps": 4}
_LONG = {**_BODY, "num_inference_steps": 150, "image_size": {"width": 512, "height": 512}}
_WAITING, _SLOTS = 500, 2
_CLIENT_POLL_SECONDS = 0.1  # fal's Python client asks ten times a second


class _Connection:
    """One connection to the gateway that stays open, as the clients keep theirs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._http = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, is_best_effort: bool = False
    ) -> dict[str, Any]:
        text = None if body is None else json.dumps(body)
        self._http.request(method, path, text, {"Content-Type": "application/json"})
        reply = self._http.getresponse()
        answer: dict[str, Any] = json.loads(reply.read())
        assert reply.status < 300 or is_best_effort, answer
        return answer


def run(bench: Bench) -> Outcome:
    rounds, submits, polls = (3, 5, 50) if bench.quick else (40, 60, 2000)
    waiting = 20 if bench.quick else _WAITING
    with bench.server(local_paths=str(demo_folder())) as server, TemporaryDirectory() as folder:
        settings = {"servers": server.grpc, "data": folder, "slots": str(_SLOTS)}
        with LocalGateway(Path(folder) / "gateway.log", settings) as gateway:
            connection = _Connection(gateway.url)
            bench.progress("warming up")
            connection.ask("POST", _RUN, _BODY)
            runs = _runs(bench, server, connection, rounds)
            starts = [_start_seconds(connection, seed) for seed in range(submits)]
            bench.progress(f"{waiting} requests wait")
            polled = _polls(connection, waiting, polls)
        triton = server.triton_version()
    figures = [
        Figure(
            "/run: time that the gateway adds to a request", difference(runs["gateway"], runs["direct"]), "s", 0.015
        ),
        Figure("Submit to IN_PROGRESS on an idle queue, 95th percentile", _percentile(starts, 95), "s", 0.15),
        Figure(f"Status while {waiting} requests wait, 99th percentile", _percentile(polled, 99), "s", 0.02),
    ]
    samples = {**runs, "starts": starts, "polls": polled}
    return Outcome(figures, samples, {"waiting": waiting, "slots": _SLOTS, "triton": triton})


def _runs(bench: Bench, server: RunningServer, connection: _Connection, rounds: int) -> Samples:
    """Seconds of equal requests through the gateway and over gRPC, in turns."""

    def through_gateway() -> float:
        begun = time.perf_counter()
        connection.ask("POST", _RUN, _BODY)
        return time.perf_counter() - begun

    def direct() -> float:
        return server.timed_request(**_BODY)[0]

    return alternate({"gateway": through_gateway, "direct": direct}, bench.rounds(rounds))


def _start_seconds(connection: _Connection, seed: int) -> float:
    """Seconds from a submit until its status is IN_PROGRESS or later."""
    begun = time.perf_counter()
    submitted = connection.ask("POST", _SUBMIT, _BODY | {"seed": seed})
    path = urlsplit(submitted["status_url"]).path
    while connection.ask("GET", path)["status"] == "IN_QUEUE":
        time.sleep(0.001)
    seconds = time.perf_counter() - begun
    while connection.ask("GET", path)["status"] != "COMPLETED":
        time.sleep(0.01)
    return seconds


def _polls(connection: _Connection, waiting: int, polls: int) -> list[float]:
    """Seconds of each status while `_SLOTS` requests run and the others wait."""
    paths = [
        urlsplit(connection.ask("POST", _SUBMIT, _LONG | {"seed": seed})["status_url"]).path for seed in range(waiting)
    ]
    samples = []
    for number in range(polls):
        begun = time.perf_counter()
        connection.ask("GET", f"{paths[number % len(paths)]}?logs=true")
        samples.append(time.perf_counter() - begun)
        time.sleep(max(0.0, _CLIENT_POLL_SECONDS / 10 - samples[-1]))
    for path in paths:  # the first ones may have ended
        connection.ask("PUT", path.removesuffix("/status") + "/cancel", is_best_effort=True)
    return samples


def _percentile(samples: list[float], percent: int) -> float:
    return quantiles(samples, n=100, method="inclusive")[percent - 1]
