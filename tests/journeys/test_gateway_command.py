"""`make gateway` with a real Triton: a request, health and metrics through the gateway, then Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lorikeet.gateway.metrics import OUTCOMES
from tests.gateway.wire import IMAGE_TO_IMAGE, ask, submit, wait_until
from tests.journeys.test_killed import children
from tests.journeys.test_stop import gone_by, shared_memory

_START_SECONDS = 240
_FINISHED = 'lorikeet_answers_total{code="OK",stage="finish"}'
_READY = re.compile(r"^lorikeet gateway: ready at (http://[\w.:]+)", re.MULTILINE)


def _ready_url(command: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while not (found := _READY.search(output.read_text())):
        assert command.poll() is None and time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    return found[1]


def _health(url: str) -> Any:
    answer = ask(f"{url}/health")
    return answer.status, answer.body


@pytest.mark.verify
def test_make_gateway_serves_until_ctrl_c(tiny: Path, tmp_path: Path) -> None:
    ports = dict.fromkeys(("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "STATUS_PORT", "GATEWAY_PORT"), "0")
    settings = {
        **ports,
        "LOCAL_PATHS": str(tiny),
        "STORE": str(tmp_path / "store"),
        "GATEWAY_DATA": str(tmp_path / "data"),
    }
    output = tmp_path / "output"
    with output.open("wb") as file:
        command = subprocess.Popen(
            [sys.executable, "-m", "deploy.gateway"],
            cwd=tmp_path,
            env={**os.environ, **{f"LORIKEET_{name}": value for name, value in settings.items()}},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        url = _ready_url(command, output)
        status, health = _health(url)
        assert (status, health["status"]) == (200, "ok"), health
        assert all(stage["ready"] for stage in health["servers"][0]["stages"].values())
        request = {"model_name": str(tiny / "sd15"), "prompt": "a boat", "num_inference_steps": 2, "seed": 1}
        request |= {"image_size": {"width": 64, "height": 64}}
        assert ask(f"{url}/run/{IMAGE_TO_IMAGE}", "POST", request).status == 200
        # 150 steps take long enough to be seen at work.
        for body in (request | {"num_inference_steps": 150}, request | {"scheduler": "no such scheduler"}):
            wait_until(url, submit(url, body).body["request_id"], "COMPLETED")
        _check_metrics(_metrics(url))
    finally:
        processes = children(command.pid)
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=60) == 0, output.read_text()
    gone_by(processes, 5)
    assert not any(shared_memory(pid) for pid in processes)


def _check_metrics(metrics: dict[str, float]) -> None:
    """After a run, a request of the queue, and one whose input is invalid."""
    own = {name.removeprefix("lorikeet_gateway_"): value for name, value in metrics.items()}
    assert own[f'requests_submitted_total{{endpoint="{IMAGE_TO_IMAGE}"}}'] == 3
    ended = {name: own[f'requests_ended_total{{endpoint="{IMAGE_TO_IMAGE}",outcome="{name}"}}'] for name in OUTCOMES}
    assert {name: count for name, count in ended.items() if count} == {"ok": 2, "validation_error": 1}
    assert own["wait_seconds_count"] == own[f'run_seconds_count{{endpoint="{IMAGE_TO_IMAGE}"}}'] == 2
    assert own["steps_per_second_count"] >= 1
    assert own['queue_requests{state="waiting"}'] == own['queue_requests{state="running"}'] == 0
    assert own["stored_files"] == 2 and own["stored_bytes"] > 0
    assert own[f'http_requests_total{{code="200",method="POST",route="/run/{IMAGE_TO_IMAGE}"}}'] == 1
    assert metrics["lorikeet_up"] == 1 and metrics[_FINISHED] == 2


def _metrics(url: str) -> dict[str, float]:
    """The series, once the stages have published both requests: they do so every second."""
    deadline = time.monotonic() + 20
    while True:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
            lines = [line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if not line.startswith("#")]
        found = {name: float(value) for name, value in lines}
        if found.get(_FINISHED) == 2 or time.monotonic() > deadline:
            return found
        time.sleep(0.5)
