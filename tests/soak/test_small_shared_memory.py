"""A server whose /dev/shm is as small as a container's by default; mounted as root or in a user namespace."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local_server import LocalServer
from lorikeet import Client, InvalidRequest, Job, LorikeetError, NotFound, Unavailable
from tests.server.error_texts import leak

MEGABYTES = 64
MIB = 1 << 20
AT_ONCE = 8
WAIT_SECONDS = 300  # a loaded machine takes a minute for 1024 px


@pytest.fixture
def small(tiny: Path, tmp_path: Path) -> Iterator[LocalServer]:
    rights = () if os.getuid() == 0 else ("--map-root-user",)
    mount = f'mount -t tmpfs -o size={MEGABYTES}m tmpfs /dev/shm && exec "$@"'
    launcher = ("unshare", *rights, "--mount", "sh", "-c", mount, "sh")
    settings = {"local_paths": str(tiny), "store": str(tmp_path / "store"), "precision": "float32"}
    with LocalServer(tmp_path / "server.log", settings, launcher=launcher) as running:
        yield running


@pytest.fixture
def client(small: LocalServer) -> Iterator[Client]:
    with Client(small.grpc) as connected:
        yield connected


def shared(server: LocalServer) -> Path:
    """The server's own /dev/shm."""
    return Path(f"/proc/{server.process.pid}/root/dev/shm")


def free(server: LocalServer) -> int:
    space = os.statvfs(shared(server))
    return space.f_bavail * space.f_frsize


@contextmanager
def filled(server: LocalServer, leave: int) -> Iterator[None]:
    """Another program takes all of /dev/shm but `leave` bytes."""
    filler = shared(server) / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free(server) - leave)
    try:
        yield
    finally:
        filler.unlink()


def asking(size: int = 64, **fields: Any) -> dict[str, Any]:
    square = {"width": size, "height": size}
    return {"model_name": "sd15", "prompt": "a boat", "num_inference_steps": 1, "image_size": square} | fields


def error(client: Client, request: dict[str, Any]) -> LorikeetError:
    with pytest.raises(LorikeetError) as caught:
        client.image_to_image(request, timeout=WAIT_SECONDS)
    assert leak(str(caught.value)) is None, caught.value
    return caught.value


def test_usual_requests_fit(small: LocalServer, client: Client) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(client.image_to_image, [asking(1024, seed=seed) for seed in range(AT_ONCE)]):
            assert len(found.files) == 1
    print(f"{free(small) / 1e6:.0f} MB of /dev/shm are free after {AT_ONCE} requests of 1024 px at once")
    assert "traceback" not in small.output().lower()


def test_a_request_that_can_never_fit_says_so(client: Client) -> None:
    refused = error(client, asking(2048, num_images=4))
    assert isinstance(refused, InvalidRequest) and "--shm-size" in refused.message
    assert client.image_to_image(asking()).files


def test_files_that_do_not_fit_are_an_error_and_nothing_else(small: LocalServer, client: Client) -> None:
    for _ in range(3):
        refused = error(client, asking(image_url=bytes(100 * MIB)))
        assert isinstance(refused, Unavailable) and "shared memory is full" in refused.message
    assert client.image_to_image(asking(256, num_images=8)).files
    assert small.output().count("lorikeet: ready after") == 1


def test_a_region_that_fills_the_shared_memory_is_given_back(small: LocalServer, client: Client) -> None:
    error(client, asking(image_url=bytes(free(small) - 4 * MIB)))  # not a picture
    assert free(small) < 8 * MIB
    refused = error(client, asking(256, num_images=8))
    assert isinstance(refused, Unavailable) and "restart" in refused.message
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            assert client.image_to_image(asking(256, num_images=8), timeout=WAIT_SECONDS).files
            break
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    with urllib.request.urlopen(f"{small.status}/health", timeout=5) as reply:
        assert json.load(reply)["restarts"] == 1
    assert free(small) > 30 * MIB


def test_while_another_program_fills_it_small_requests_run_and_others_are_refused(
    small: LocalServer, client: Client
) -> None:
    with filled(small, leave=MIB):
        assert client.image_to_image(asking()).files
        refused = error(client, asking(256, num_images=8))
        assert isinstance(refused, Unavailable) and "lacks shared memory" in refused.message
        assert isinstance(error(client, asking(image_url=bytes(8 * MIB))), Unavailable)
        assert client.image_to_image(asking()).files
    assert client.image_to_image(asking(256, num_images=8)).files
    assert small.output().count("lorikeet: ready after") == 1


def test_an_answer_that_cannot_be_sent_is_an_error(small: LocalServer, client: Client) -> None:
    """Another program fills /dev/shm after the request is admitted: the decoder's pixels have no space."""
    job = client.submit(asking(256, num_images=8, num_inference_steps=10))
    while _stage(job) != "denoiser":
        time.sleep(0.05)
    with filled(small, leave=0), pytest.raises(Unavailable, match="no shared memory for the answer"):
        job.result(timeout=WAIT_SECONDS)
    assert client.image_to_image(asking(256, num_images=8)).files
    assert small.output().count("lorikeet: ready after") == 1


def _stage(job: Job) -> str | None:
    """The stage that has the job; None before it is admitted."""
    try:
        return job.status().stage
    except NotFound:
        return None
