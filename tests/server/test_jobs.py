"""Progress and cancel, by request id and token; and what shares the step loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.local_server import LocalServer
from lorikeet import Cancelled, Client, InvalidRequest, NotFound
from lorikeet.schema import JobStatus


def fields(tiny: Path, **more: Any) -> dict[str, Any]:
    return {"model_name": str(tiny / "sd15"), "prompt": "a fish", "seed": 1, **more}


def until(client: Client, job: Any, reached: Any, seconds: float = 30) -> JobStatus:
    """Ask for the job's status until it is what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = client.status(job.request_id, job.job_token)
        except NotFound:  # not admitted yet
            continue
        if reached(status):
            return status
        time.sleep(0.01)
    raise AssertionError(f"never reached; the last was {status}")


def running(status: JobStatus) -> bool:
    return status.stage == "denoiser" and status.step >= 2


def test_progress_counts_the_steps_and_ends_with_done(client: Client, tiny: Path) -> None:
    seen: list[JobStatus] = []
    result = client.image_to_image(fields(tiny, num_inference_steps=60), on_progress=seen.append)
    steps = [status.step for status in seen if status.stage == "denoiser"]
    assert steps == sorted(steps) and len(set(steps)) >= 2
    assert {status.of for status in seen if status.step} == {61}  # PNDM's first step is run twice
    assert result.seed == 1


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_cancel_ends_a_running_request(server: LocalServer, tiny: Path, way: str) -> None:
    with Client(getattr(server, way)) as client:
        job = client.submit(fields(tiny, num_inference_steps=150, image_size={"width": 256, "height": 256}))
        until(client, job, running)
        asked = time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result()
        assert time.monotonic() - asked < 5
        assert client.status(job.request_id, job.job_token).status == "cancelled"


def test_nobody_else_can_ask_or_cancel(client: Client, tiny: Path) -> None:
    job = client.submit(fields(tiny, num_inference_steps=40))
    until(client, job, running)
    for stranger in (client.status, client.cancel):
        with pytest.raises(NotFound):
            stranger(job.request_id, "0" * 32)
    assert job.result().images


def test_a_live_request_id_cannot_be_used_twice(client: Client, tiny: Path) -> None:
    job = client.submit(fields(tiny, num_inference_steps=40), request_id="mine")
    until(client, job, running)
    with pytest.raises(InvalidRequest, match="request_id"):
        client.image_to_image(fields(tiny, num_inference_steps=1), request_id="mine")
    assert job.result().images
    assert client.image_to_image(fields(tiny, num_inference_steps=1), request_id="mine").images


def test_a_request_gives_the_same_bytes_alone_and_beside_others(client: Client, tiny: Path) -> None:
    lora = {"path": str(tiny / "loras" / "sd15" / "peft.safetensors")}
    mine = fields(tiny, num_inference_steps=12, scheduler="Euler", num_images=2, loras=[lora])
    alone = client.image_to_image(mine).files
    others = [
        fields(tiny, num_inference_steps=20),
        fields(tiny, num_inference_steps=15, guidance_scale=1.0, loras=[lora]),
        fields(tiny, num_inference_steps=25, scheduler="DDIM", loras=[lora], seed=9),
        {**fields(tiny, num_inference_steps=10), "model_name": str(tiny / "sdxl")},
        fields(tiny, num_inference_steps=25, loras=[lora], image_size={"width": 64, "height": 96}),
    ]
    jobs = [client.submit(other) for other in others]
    until(client, jobs[0], running)
    assert client.image_to_image(mine).files == alone
    assert all(job.result().images for job in jobs)


def test_a_short_request_overtakes_a_long_one(client: Client, tiny: Path) -> None:
    long = client.submit(fields(tiny, num_inference_steps=120))
    until(client, long, running)
    client.image_to_image(fields(tiny, num_inference_steps=4))
    assert client.status(long.request_id, long.job_token).status == "running"
    assert long.result().images


def test_many_at_once_are_all_answered(client: Client, tiny: Path) -> None:
    jobs = [client.submit(fields(tiny, num_inference_steps=2, seed=seed)) for seed in range(16)]
    seeds = [job.result().seed for job in jobs]
    assert seeds == list(range(16))


def test_an_exception_in_the_callback_cancels_and_is_seen(client: Client, tiny: Path) -> None:
    stop = threading.Event()

    def callback(status: JobStatus) -> None:
        if running(status):
            stop.set()
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.image_to_image(fields(tiny, num_inference_steps=150), on_progress=callback)
    assert stop.is_set()
