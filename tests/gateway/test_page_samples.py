"""Each code sample of the API page runs, changed in nothing but where it points. `clients/page` holds them verbatim."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.gateway.fal_clients import run_node
from tests.gateway.target import Target
from tests.gateway.test_client_calls import UUID

PAGE = Path(__file__).parent / "clients" / "page"
APPLICATION = "/queue/fal-ai/lora"
SUBMIT = f"{APPLICATION}/image-to-image"


class Sample:
    """A sample that has run. `output`: its lines. `answers`: method, path and status of each request it made."""

    def __init__(self, name: str, target: Target, request_id: str = "") -> None:
        (target.workspace / name).write_text((PAGE / name).read_text("utf-8"), "utf-8")
        # As the page says: "Set FAL_KEY as an environment variable in your runtime."
        variables = {"FAL_KEY": target.key, "GATEWAY": target.url, "REQUEST_ID": request_id}
        done = run_node(target.workspace, name, None, "--import", "./preamble.mjs", variables=variables)
        assert done.returncode == 0, done.stdout + done.stderr
        self.output = done.stdout.splitlines()
        self.answers: list[tuple[str, str, int]] = [tuple(json.loads(line)) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def finished(keyed_gateway: Target) -> str:
    """The id of a finished request of the page's model."""
    body = {"model_name": "stabilityai/stable-diffusion-xl-base-1.0", "prompt": "a boat", "num_inference_steps": 2}
    request_id: str = keyed_gateway.ask(SUBMIT, "POST", body).body["request_id"]
    keyed_gateway.wait_until(request_id, "COMPLETED")
    return request_id


def test_subscribe(keyed_gateway: Target) -> None:
    sample = Sample("subscribe.mjs", keyed_gateway)
    assert sample.answers[0] == ("POST", SUBMIT, 200)
    request_id = sample.output[-1]
    assert UUID.fullmatch(request_id)
    assert sample.answers[-1] == ("GET", f"{APPLICATION}/requests/{request_id}", 200)
    status = f"{APPLICATION}/requests/{request_id}/status?logs=1"
    assert {("GET", status, 202), ("GET", status, 200)} <= set(sample.answers)
    assert any(line.strip().startswith("url:") for line in sample.output)


def test_api_key(keyed_gateway: Target) -> None:
    assert Sample("api_key.mjs", keyed_gateway).answers == []


def test_submit(keyed_gateway: Target) -> None:
    """The webhook's host does not exist: the request is accepted all the same."""
    path = f"{SUBMIT}?fal_webhook=https%3A%2F%2Foptional.webhook.url%2Ffor%2Fresults"
    assert Sample("submit.mjs", keyed_gateway).answers == [("POST", path, 200)]


def test_status(keyed_gateway: Target, finished: str) -> None:
    sample = Sample("status.mjs", keyed_gateway, finished)
    assert sample.answers == [("GET", f"{APPLICATION}/requests/{finished}/status?logs=1", 200)]


def test_result(keyed_gateway: Target, finished: str) -> None:
    sample = Sample("result.mjs", keyed_gateway, finished)
    assert sample.answers == [("GET", f"{APPLICATION}/requests/{finished}", 200)]
    assert sample.output[-1] == finished


def test_upload(keyed_gateway: Target) -> None:
    sample = Sample("upload.mjs", keyed_gateway)
    assert [(method, status) for method, _, status in sample.answers] == [("POST", 200), ("PUT", 200)]


def test_the_input_of_the_schema(keyed_gateway: Target) -> None:
    """The page's example of a whole input, and the shape of its example of an output."""
    output = keyed_gateway.ask("/run/fal-ai/lora/image-to-image", "POST", json.loads((PAGE / "input.json").read_text()))
    assert output.status == 200, output
    (image,) = output.body["images"]
    assert image["content_type"] == "image/jpeg"
    assert {"url", "content_type", "file_name", "file_size", "width", "height"} <= image.keys()
    content = keyed_gateway.download(image["url"])
    assert len(content) == image["file_size"]
    assert Image.open(io.BytesIO(content)).size == (image["width"], image["height"])
    check_types(output.body)


def check_types(output: dict[str, Any]) -> None:
    """The output schema of the page."""
    assert isinstance(output["seed"], int)
    assert output["has_nsfw_concepts"] == [False]
    assert "debug_latents" not in output and "debug_per_pass_latents" not in output
