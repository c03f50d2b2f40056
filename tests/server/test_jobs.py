"""Progress and cancel, by request id and token."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from deploy.local_server import LocalServer
from lorikeet import Cancelled, Client, InvalidRequest, NotFound
from lorikeet.schema import JobStatus
from tests.server.following import fields, running, until


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


def test_an_exception_in_the_callback_cancels_and_is_seen(client: Client, tiny: Path) -> None:
    stop = threading.Event()

    def callback(status: JobStatus) -> None:
        if running(status):
            stop.set()
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.image_to_image(fields(tiny, num_inference_steps=150), on_progress=callback)
    assert stop.is_set()
