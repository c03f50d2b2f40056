"""Progress and cancel, by request id and token."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.poll_thread import PollThread
from deploy.local_server import LocalServer
from lorikeet import Cancelled, Client, NotFound
from lorikeet.schema import JobStatus
from tests.server.following import fields, running, until


def test_progress_counts_the_steps_and_ends_with_done(client: Client, tiny: Path) -> None:
    seen: list[JobStatus] = []
    result = client.image_to_image(fields(tiny, num_inference_steps=60), on_progress=seen.append)
    steps = [status.step for status in seen if status.stage == "denoiser"]
    assert steps == sorted(steps) and len(set(steps)) >= 2
    denoised = {status.of for status in seen if status.stage == "denoiser" and status.step}
    assert denoised == {61}  # PNDM's first step is run twice
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


def test_two_clients_may_use_one_request_id(client: Client, tiny: Path) -> None:
    """Each call has its own token, so a client addresses only its own request."""
    job = client.submit(fields(tiny, num_inference_steps=150), request_id="mine")
    until(client, job, running)
    assert client.image_to_image(fields(tiny, num_inference_steps=1), request_id="mine").images
    assert job.status().status == "running"
    job.cancel()
    with pytest.raises(Cancelled):
        job.result()


def _post(server: LocalServer, model: str, body: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """A plain KServe call, as curl sends it: the response's JSON, or that of the error."""
    tensor = {"name": "REQUEST", "datatype": "BYTES", "shape": [1], "data": [json.dumps(body)]}
    call = {"id": "leased", "inputs": [tensor], "outputs": [{"name": "RESPONSE"}], "parameters": parameters}
    request = urllib.request.Request(f"{server.http}/v2/models/{model}/infer", json.dumps(call).encode())
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            found: dict[str, Any] = json.loads(json.load(reply)["outputs"][0]["data"][0])
    except urllib.error.HTTPError as error:
        found = json.load(error)
    return found


@pytest.mark.parametrize("renews", [False, True])
def test_a_job_ends_when_its_client_does_not_renew_the_lease(server: LocalServer, tiny: Path, renews: bool) -> None:
    def renew() -> None:
        _post(server, "jobs", {"action": "renew", "request_id": "leased", "job_token": "secret"})

    body = fields(tiny, num_inference_steps=100, image_size={"width": 192, "height": 192})
    with PollThread(renew, 0.3) if renews else nullcontext():
        found = _post(server, "lora_image_to_image", body, job_token="secret", job_lease_ms=1000)
    assert ("images" in found) is renews, found
    assert renews or "the client did not renew its lease (job_lease_ms)" in found["error"]


def test_an_exception_in_the_callback_cancels_and_is_seen(client: Client, tiny: Path) -> None:
    stop = threading.Event()

    def callback(status: JobStatus) -> None:
        if running(status):
            stop.set()
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.image_to_image(fields(tiny, num_inference_steps=150), on_progress=callback)
    assert stop.is_set()
