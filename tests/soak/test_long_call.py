"""One engine call of 150 seconds is no fault: nothing restarts, health says what runs, and other stages go on.

The call is real: the UNet of the tiny checkpoint, on a picture so large that its attention takes that long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.running_server import RunningServer
from deploy.local_server import LocalServer
from lorikeet import Client, Job
from tests.journeys.test_killed import children
from tests.server.following import until
from tests.soak.health import HealthWatch
from tests.soak.heartbeats import HeartbeatWatch

CALL_SECONDS = 150.0
AIMED_SECONDS = 1.3 * CALL_SECONDS
SIDES = (256, 512, 1024)  # of the pictures that measure this machine, in pixels
MULTIPLE = 64  # of the long call's side
OTHERS_SECONDS = 10.0  # between two other requests
REACHED_SECONDS = 5.0  # until another request has left the encoders
SPREAD_SECONDS = 1.0  # of the call's begin, as health gives it
SILENT_SECONDS = 2.0


@pytest.fixture
def server(tiny: Path, tmp_path: Path) -> Iterator[LocalServer]:
    """A server that allows pictures as large as a fast machine could need."""
    settings = {"local_paths": str(tiny), "store": str(tmp_path / "store"), "precision": "float32"}
    with LocalServer(tmp_path / "server.log", settings | {"max_pixels": str(8192 * 8192)}) as running:
        yield running


def one_call(tiny: Path, side: int, seed: int = 0) -> dict[str, Any]:
    """Text to image with one UNet call of one row."""
    return {
        "model_name": str(tiny / "sd15"),
        "prompt": "a fish",
        "num_inference_steps": 1,
        "scheduler": "DDIM",
        "guidance_scale": 1.0,
        "image_size": {"width": side, "height": side},
        "seed": seed,
    }


def test_a_call_of_150_seconds_is_no_fault(server: LocalServer, tiny: Path) -> None:
    with Client(server.grpc) as client:
        running = RunningServer(server, client)
        stages, processes = running.stages, set(children(server.process.pid))
        side = _long_side(client, tiny)
        with HeartbeatWatch(running.job_table) as heartbeats, HealthWatch(server) as health:
            long = client.submit(one_call(tiny, side))
            others, reached = _send_others(client, tiny, long)
            pictures = [job.result().images[0].size for job in (long, *others)]
        calls = [look for look in health.looks if look.call_seconds > OTHERS_SECONDS]
        longest = max(look.call_seconds for look in calls)
        begins = [look.at - look.call_seconds for look in calls]
        print(
            f"an engine call of {longest:.0f} s ({side} px): {len(calls)} looks at health named it; "
            f"{len(others)} other requests left the encoders after at most {max(reached):.2f} s; "
            f"longest silence of a heartbeat {heartbeats}",
            flush=True,
        )
        assert longest >= CALL_SECONDS
        assert len(calls) > longest and max(begins) - min(begins) < SPREAD_SECONDS
        assert {(look.health["status"], look.health["restarts"]) for look in health.looks} == {("ok", 0)}
        assert max(reached) < REACHED_SECONDS
        assert max(heartbeats.longest.values()) < SILENT_SECONDS, heartbeats.longest
        assert pictures == [(side, side), *[(64, 64)] * len(others)]
        assert client.image_to_image(one_call(tiny, 64, seed=1)).images
        assert running.stages == stages and set(children(server.process.pid)) == processes
        assert server.output().count("lorikeet: ready after") == 1


def _long_side(client: Client, tiny: Path) -> int:
    """The side of a picture whose UNet call takes `AIMED_SECONDS` here. The time grows with the side's fourth power."""
    seconds = 0.0
    for side in SIDES:
        seconds = client.image_to_image(one_call(tiny, side)).timings["denoiser"]
        print(f"{side} px: an engine call of {seconds:.2f} s", flush=True)
    return round(SIDES[-1] * math.sqrt(math.sqrt(AIMED_SECONDS / seconds)) / MULTIPLE) * MULTIPLE


def _send_others(client: Client, tiny: Path, long: Job) -> tuple[list[Job], list[float]]:
    """Send small requests until the long call is over. Their jobs, and the seconds until each had left the encoders."""
    sent: list[Job] = []
    reached: list[float] = []
    _until_encoded(client, long)
    while long.status().stage == "denoiser":
        begun = time.monotonic()
        sent.append(client.submit(one_call(tiny, 64, seed=len(sent))))
        _until_encoded(client, sent[-1])
        reached.append(time.monotonic() - begun)
        time.sleep(OTHERS_SECONDS)
    return sent, reached


def _until_encoded(client: Client, job: Job) -> None:
    until(client, job, lambda status: status.stage in ("denoiser", "vae_decoder", "finish"), seconds=60)
