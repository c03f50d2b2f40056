"""A killed stage: every waiting client has an error within seconds, and the server comes back by itself."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.local_server import LocalServer
from lorikeet import Client, LorikeetError

STAGES = ("prepare", "text_encoder", "vae_encoder", "denoiser", "vae_decoder", "finish", "jobs")
IN_TEST = ("prepare", "denoiser")  # in `make test`: one without networks, one with; `make verify` kills all
IN_FLIGHT = 8
ERROR_SECONDS = 10


def children(pid: int) -> list[int]:
    """The processes below a process."""
    found = []
    for below in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended meanwhile
            for child in below.read_text().split():
                found += [int(child), *children(int(child))]
    return found


def stub_of(server: LocalServer, stage: str) -> int:
    """The process of a stage: Triton names its model on the command line."""
    for pid in children(server.process.pid):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if any(re.search(rf"/{stage}/1/model\.py$", word) for word in words):
            return pid
    raise AssertionError(f"no process of {stage}")


def long_request(tiny: Path, seed: int) -> dict[str, Any]:
    return {
        "model_name": str(tiny / "sd15"),
        "prompt": "a fish",
        "num_inference_steps": 150,
        "image_size": {"width": 256, "height": 256},
        "seed": seed,
    }


def ends(client: Client, request: dict[str, Any]) -> tuple[float, str]:
    """When a request ended, and how."""
    try:
        client.image_to_image(request, timeout=60)
        return time.monotonic(), "OK"
    except LorikeetError as error:
        return time.monotonic(), error.status


def restarts(server: LocalServer) -> int:
    """How often a stage's end was the reason for a restart, as the supervisor counts it for Prometheus."""
    with urllib.request.urlopen(f"{server.status}/metrics", timeout=10) as reply:
        found = re.search(
            r'^lorikeet_restarts_total\{reason="stage_ended"\} (\S+)$', reply.read().decode(), re.MULTILINE
        )
    assert found
    return int(float(found[1]))


@pytest.mark.parametrize(
    "stage", [stage if stage in IN_TEST else pytest.param(stage, marks=pytest.mark.verify) for stage in STAGES]
)
def test_a_killed_stage_costs_one_cold_start(server: LocalServer, tiny: Path, stage: str) -> None:
    ready, counted = server.output().count("lorikeet: ready after"), restarts(server)
    with Client(server.grpc) as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
        waiting = [pool.submit(ends, client, long_request(tiny, seed)) for seed in range(IN_FLIGHT)]
        time.sleep(1.5)
        assert not any(job.done() for job in waiting)
        killed = time.monotonic()
        os.kill(stub_of(server, stage), signal.SIGKILL)
        for job in waiting:
            at, status = job.result()
            assert status == "UNAVAILABLE"
            assert at - killed < ERROR_SECONDS
    server.wait_ready(times=ready + 1, timeout=60)
    cold_start = server.start_seconds
    with Client(server.grpc) as client:
        begun = time.monotonic()
        assert client.image_to_image(long_request(tiny, 0) | {"num_inference_steps": 1}).images
        assert time.monotonic() - begun < cold_start
    assert restarts(server) == counted + 1


def test_a_killed_server_leaves_nothing_behind_and_comes_back(server: LocalServer, tiny: Path) -> None:
    ready = server.output().count("lorikeet: ready after")
    before = children(server.process.pid)
    triton = next(pid for pid in before if "tritonserver" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])
    os.kill(triton, signal.SIGKILL)
    server.wait_ready(times=ready + 1, timeout=60)
    assert not set(before) & set(children(server.process.pid))
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    with Client(server.grpc) as client:
        assert client.image_to_image(long_request(tiny, 0) | {"num_inference_steps": 1}).images
