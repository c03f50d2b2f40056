"""fal's clients run, queue, follow and cancel requests. Their pictures are Triton's."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Any

from deploy.local_server import LocalServer
from tests.gateway.fal_clients import AnyClient, JavaScriptClient, PythonClient
from tests.gateway.features import AI_SDK, FIRST, OF_2025, feature
from tests.gateway.inputs import STEPS, digest_on_triton, quick, slow
from tests.gateway.target import Target

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STEP_LINE = re.compile(r"(\d+)/(\d+) [\d.]+ it/s")
STEP_NUMBERS = list(range(1, STEPS + 1))


def steps_of(messages: list[str]) -> list[int]:
    """The numbers of the denoising steps that log lines tell of."""
    return [int(found[1]) for line in messages if (found := STEP_LINE.fullmatch(line))]


def check_output(output: dict[str, Any], body: dict[str, Any], triton: LocalServer) -> None:
    """The output is that of the input."""
    (image,) = output["images"]
    assert (image["width"], image["height"], image["content_type"]) == (64, 64, "image/png")
    assert (output["seed"], output["has_nsfw_concepts"]) == (body["seed"], [False])
    assert image["sha256"] == digest_on_triton(triton.grpc, body)


@feature("run")
def test_run(client: AnyClient, target: Target, triton: LocalServer) -> None:
    body = quick()
    answer = client.call(target, "run", input=body)
    if client is AI_SDK:
        check_ai_sdk(answer, body, triton)
        return
    check_output(answer["output"], body, triton)
    if "request_id" in answer:
        assert UUID.fullmatch(answer["request_id"])


def check_ai_sdk(answer: dict[str, Any], body: dict[str, Any], triton: LocalServer) -> None:
    """It downloads the picture itself. It always sends `num_images`, which the file's metadata repeats."""
    (content,) = answer["images"]
    assert sha256(base64.b64decode(content)).hexdigest() == digest_on_triton(triton.grpc, {**body, "num_images": 1})
    (image,) = answer["metadata"]["images"]
    assert (image["width"], image["contentType"], image["nsfw"]) == (64, "image/png", False)


@feature("subscribe with logs")
def test_subscribe(client: AnyClient, target: Target, triton: LocalServer) -> None:
    body = quick()
    answer = client.call(target, "subscribe", input=body)
    check_output(answer["output"], body, triton)
    assert {update["status"] for update in answer["updates"]} <= {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}
    assert answer["updates"][-1]["status"] == "COMPLETED"
    assert steps_of(answer["updates"][-1]["messages"]) == STEP_NUMBERS


@feature("subscribe, streaming mode")
def test_subscribe_over_the_status_stream(client: AnyClient, target: Target, triton: LocalServer) -> None:
    """The client adds up the lines of all events, so that a line sent twice would be there twice."""
    body = quick()
    answer = client.call(target, "subscribe", input=body, options={"mode": "streaming"})
    check_output(answer["output"], body, triton)
    assert answer["updates"][-1]["status"] == "COMPLETED"
    assert steps_of(answer["updates"][-1]["messages"]) == STEP_NUMBERS


@feature("submit, status, result")
def test_submit_status_result(client: AnyClient, target: Target, triton: LocalServer) -> None:
    body = quick()
    answer = client.call(target, "queue", input=body)
    check_output(answer["output"], body, triton)
    assert UUID.fullmatch(answer["submitted"]["request_id"])
    last = answer["last"]
    assert (last["status"], last.get("error"), last.get("error_type")) == ("COMPLETED", None, None)
    assert 0 < last["metrics"]["inference_time"] < 60
    assert steps_of(last["messages"]) == STEP_NUMBERS


@feature("status stream")
def test_status_stream(client: AnyClient, target: Target) -> None:
    """Each event has the lines that are new."""
    answer = client.call(target, "streamStatus", input=quick())
    states = [event["status"] for event in answer["events"]]
    assert states == sorted(states, key=("IN_QUEUE", "IN_PROGRESS", "COMPLETED").index)
    assert answer["last"]["status"] == "COMPLETED"
    assert steps_of([line for event in answer["events"] for line in event["messages"]]) == STEP_NUMBERS


@feature("stream")
def test_stream(client: AnyClient, target: Target, triton: LocalServer) -> None:
    """The last event is the output; those before it are progress."""
    body = quick()
    answer = client.call(target, "stream", input=body)
    check_output(answer["last"], body, triton)
    *progress, last = answer["events"]
    assert last == answer["last"]
    assert steps_of([line["message"] for event in progress for line in event["logs"]]) == STEP_NUMBERS


@feature("stream with a browser's token", in_verify=(OF_2025, FIRST))
def test_stream_with_a_token(client: JavaScriptClient, target: Target, triton: LocalServer) -> None:
    """The client asks for a token with its key, and sends the token alone. `requestMiddleware` does not see that."""
    body = quick()
    answer = client.call(target, "stream", route="fetch", input=body, options={"connectionMode": "client"})
    check_output(answer["last"], body, triton)


@feature("cancel while queued")
def test_cancel_while_queued(client: AnyClient, target: Target) -> None:
    with target.occupied() as running:
        answer = client.call(target, "cancel", input=quick(), when="IN_QUEUE")
        assert target.status(running).body["status"] == "IN_PROGRESS"
    check_cancelled(client, target, answer)
    assert steps_of(answer["last"]["messages"]) == []


@feature("cancel while running")
def test_cancel_while_running(client: AnyClient, target: Target) -> None:
    answer = client.call(target, "cancel", input=slow(), when="IN_PROGRESS")
    check_cancelled(client, target, answer)


def check_cancelled(client: AnyClient, target: Target, answer: dict[str, Any]) -> None:
    """A cancelled request is COMPLETED with an error; its result is 499."""
    last = answer["last"]
    assert last["status"] == "COMPLETED"
    if not (isinstance(client, PythonClient) and client.name.endswith("0.12.0")):
        assert (last["error"], last["error_type"]) == ("Request cancelled by the client.", "client_cancelled")
    result = target.ask(f"/queue/fal-ai/lora/requests/{answer['request_id']}")
    assert (result.status, result.body["error_type"]) == (499, "client_cancelled")
