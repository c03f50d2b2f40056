"""What a request may rely on, whatever else the server does at the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local_server import LocalServer
from lorikeet import Cancelled, Client, DeadlineExceeded, InvalidRequest, Unavailable
from lorikeet.client.sync import Job
from lorikeet.schema import JobStatus
from tests.server.following import fields, running, until
from tests.server.web import ENDLESS, Web

MAX_IN_FLIGHT, MAX_RUNNING = 64, 16  # the settings' defaults
LARGE = {"width": 256, "height": 256}


def _lora(tiny: Path, style: str) -> dict[str, Any]:
    return {"path": str(tiny / "loras" / "sd15" / f"{style}.safetensors")}


def _others(tiny: Path) -> list[dict[str, Any]]:
    """Seven requests that differ from each other in steps, schedulers, sizes, LoRAs and checkpoints."""
    peft, kohya = _lora(tiny, "peft"), _lora(tiny, "kohya")
    return [
        fields(tiny, num_inference_steps=16),
        fields(tiny, num_inference_steps=12, guidance_scale=1.0, loras=[peft]),
        fields(tiny, num_inference_steps=16, scheduler="DDIM", loras=[peft], seed=9),
        {**fields(tiny, num_inference_steps=8), "model_name": str(tiny / "sdxl")},
        fields(tiny, num_inference_steps=16, loras=[kohya], image_size={"width": 64, "height": 96}),
        fields(tiny, num_inference_steps=10, scheduler="Euler A", num_images=3, loras=[peft, kohya]),
        fields(tiny, num_inference_steps=14, scheduler="DPM++ 2M SDE", image_size={"width": 128, "height": 64}),
    ]


@pytest.mark.parametrize(
    ("precision", "num_images"),
    [
        ("float32", 4),
        ("bfloat16", 1),
        pytest.param("float32", 1, marks=pytest.mark.verify),
        pytest.param("bfloat16", 4, marks=pytest.mark.verify),
    ],
)
def test_a_request_gives_the_same_bytes_alone_and_beside_seven_others(
    client: Client, in_bfloat16: Client, tiny: Path, precision: str, num_images: int
) -> None:
    server = client if precision == "float32" else in_bfloat16
    mine = fields(tiny, num_inference_steps=10, scheduler="Euler", num_images=num_images, loras=[_lora(tiny, "peft")])
    alone = server.image_to_image(mine)
    assert alone.response.receipt.engine.precision == precision
    jobs = [server.submit(other) for other in _others(tiny)]
    until(server, jobs[0], running)
    assert server.image_to_image(mine).files == alone.files
    assert all(job.result().images for job in jobs)


def test_a_request_with_tiles_gives_the_same_bytes_alone_and_beside_others(client: Client, tiny: Path) -> None:
    """Others have windows of an equal size, or are as large as one."""
    large = {"image_size": {"width": 200, "height": 176}, "tile_width": 128, "tile_height": 128}
    mine = fields(tiny, **large, num_inference_steps=6, num_images=2, loras=[_lora(tiny, "peft")])
    alone = client.image_to_image(mine)
    assert (alone.response.receipt.vae_tile_width, alone.response.receipt.vae_tile_height) == (128, 128)
    others = [
        fields(tiny, **large, num_inference_steps=9, tile_stride_width=96, seed=2),
        fields(tiny, **large, num_inference_steps=9, loras=[_lora(tiny, "peft")], scheduler="Euler", seed=3),
        fields(tiny, num_inference_steps=40, image_size={"width": 128, "height": 128}, loras=[_lora(tiny, "peft")]),
        *_others(tiny)[:2],
    ]
    jobs = [client.submit(other) for other in others]
    until(client, jobs[0], running)
    assert client.image_to_image(mine).files == alone.files
    assert all(job.result().images for job in jobs)


def test_a_short_request_joins_a_long_one_and_is_back_first(client: Client, tiny: Path) -> None:
    long = client.submit(fields(tiny, num_inference_steps=120, scheduler="Euler", image_size=LARGE))
    until(client, long, running)
    short = client.submit(fields(tiny, num_inference_steps=4, scheduler="Euler", image_size=LARGE))
    until(client, short, lambda status: status.stage == "denoiser" and status.status == "running")
    joined = _steps(client, long)
    short.result()
    # Its four steps, the one under way when it came, and what was stepped while it was decoded and we looked.
    decoding = until(client, short, lambda status: status.status == "done")
    assert decoding and _steps(client, long) - joined < 60
    assert client.status(long.request_id, long.job_token).status == "running"
    long.cancel()


def test_requests_with_different_loras_take_turns(client: Client, tiny: Path) -> None:
    first, second = (
        client.submit(fields(tiny, num_inference_steps=steps, scheduler="Euler", loras=[_lora(tiny, style)]))
        for steps, style in ((150, "peft"), (40, "kohya"))
    )
    begun = _steps_when(client, second, first, 5)
    ended = _steps_when(client, second, first, 35)
    assert 20 <= ended - begun <= 40, "of 30 steps in turn"
    first.cancel()
    second.result()


def _steps(client: Client, job: Job) -> int:
    return client.status(job.request_id, job.job_token).step


def _steps_when(client: Client, watched: Job, other: Job, step: int) -> int:
    """The steps of `other` when `watched` has done `step`."""
    until(client, watched, lambda status: status.stage == "denoiser" and status.step >= step)
    return _steps(client, other)


def test_64_at_once_are_all_answered_in_fair_order_and_one_more_is_turned_away(client: Client, tiny: Path) -> None:
    done: list[int] = []

    def wait(number: int, job: Job) -> int:
        seed = job.result().seed
        done.append(number)
        return seed

    with ThreadPoolExecutor(MAX_IN_FLIGHT) as pool:
        jobs = []
        for seed in range(MAX_IN_FLIGHT):
            # Of so many steps that none ends before the last one is admitted, also on a busy machine.
            jobs.append(client.submit(fields(tiny, num_inference_steps=24, seed=seed)))
            until(client, jobs[-1], lambda status: True)  # admitted, so the order of their coming is known
        waiting = [pool.submit(wait, number, job) for number, job in enumerate(jobs)]
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="64 requests are already in flight"):
            client.image_to_image(fields(tiny, num_inference_steps=1))
        assert time.monotonic() - begun < 2
        assert [future.result() for future in waiting] == list(range(MAX_IN_FLIGHT))
    assert max(abs(place - number) for place, number in enumerate(done)) <= MAX_RUNNING


@contextmanager
def _busy(client: Client, tiny: Path) -> Iterator[list[Job]]:
    """Requests that fill the step loop for long; cancelled in the end."""
    slow = fields(tiny, num_inference_steps=150)
    jobs = [client.submit(slow) for _ in range(MAX_RUNNING)]
    try:
        for job in jobs:
            until(client, job, lambda status: status.stage == "denoiser" and status.status == "running")
        yield jobs
    finally:
        for job in jobs:
            job.cancel()
        for job in jobs:
            with pytest.raises(Cancelled):
                job.result()


def test_priority_overtakes_who_waits_and_a_cancel_frees_who_waits(client: Client, tiny: Path) -> None:
    def waits(status: JobStatus) -> bool:
        return status.stage == "denoiser" and status.status == "queued"

    with _busy(client, tiny) as busy:
        quick = fields(tiny, num_inference_steps=1)
        normal, low, dropped = (client.submit(quick, priority=priority) for priority in (None, 3, 2))
        late = client.submit(quick, deadline=0.5)
        for job in (normal, low, dropped):
            until(client, job, waits)
        urgent = client.submit(quick, priority=1)
        until(client, urgent, waits)
        dropped.cancel()
        with pytest.raises(Cancelled):
            dropped.result(timeout=2)
        with pytest.raises(DeadlineExceeded):
            late.result(timeout=5)
        assert client.status(busy[0].request_id, busy[0].job_token).status == "running"
        busy[0].cancel()  # leaves one place
        order = []
        for job in (urgent, normal, low):
            assert job.result().images
            order.append([client.status(j.request_id, j.job_token).status for j in (urgent, normal, low)])
        assert order[0][0] == "done" and order[0][2] != "done"


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_a_deadline_ends_a_running_request(server: LocalServer, tiny: Path, way: str) -> None:
    slow = fields(tiny, num_inference_steps=150, num_images=4, image_size=LARGE)
    with Client(getattr(server, way)) as client:
        job = client.submit(slow, deadline=1.0)
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="the request's job_timeout_ms has passed"):
            job.result()
        assert 0.9 < time.monotonic() - begun < 5
        assert client.status(job.request_id, job.job_token).status == "failed"


@pytest.mark.parametrize("terms", [{"priority": 4}, {"priority": 0}])
def test_terms_that_cannot_be_are_refused(client: Client, tiny: Path, terms: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="job_priority: expected a whole number from 1 to 3"):
        client.image_to_image(fields(tiny), **terms)


def test_a_cancel_ends_a_download(client: Client, tiny: Path, web: Web) -> None:
    job = client.submit(fields(tiny, image_url=web.url(ENDLESS)))
    until(client, job, lambda status: web.requests[ENDLESS] > 0)
    begun = time.monotonic()
    job.cancel()
    with pytest.raises(Cancelled):
        job.result()
    assert time.monotonic() - begun < 2
