"""fal's clients raise their own errors, with the statuses and bodies of the specification."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.gateway.fal_clients import AnyClient, ClientError, JavaScriptClient, PythonClient
from tests.gateway.features import AI_SDK, FIRST, LATEST, OF_2025, PYTHON_0, PYTHON_ASYNC, SERVERLESS, feature
from tests.gateway.inputs import quick, slow
from tests.gateway.target import Target
from tests.gateway.test_client_calls import UUID

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
INVALID = {"loras": [{"path": "a.safetensors", "scale": "much"}], "num_inference_steps": 151}
INVALID_FIELDS = {("body", "loras", 0, "scale"), ("body", "num_inference_steps")}


def error_of(client: AnyClient, target: Target, call: str, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        client.call(target, call, **arguments)
    return caught.value.found


def classes(client: AnyClient, of_status: str = "ApiError") -> str:
    """The class that a client raises for a status of its own."""
    return "FalClientHTTPError" if isinstance(client, PythonClient) else of_status


@feature("wrong key: 401")
def test_a_wrong_key(client: AnyClient, target: Target) -> None:
    wrong = replace(target, key=target.key[:-4] + "AAAA")
    error = error_of(client, wrong, "run", input=quick())
    assert error["status"] == 401
    if client is not AI_SDK:
        assert error["type"] == classes(client)
        assert error["body"] == {"detail": "invalid key credentials"}


@feature("invalid field: 422")
def test_invalid_fields(client: AnyClient, target: Target) -> None:
    """Of `run`, and of the result of a request that the queue has accepted."""
    if client is AI_SDK:
        # Its parser knows no numbers in `loc`, fal's places in lists: only fields outside lists have a message.
        error = error_of(client, target, "run", input=quick(num_inference_steps=50, clip_skip=3))
        assert (error["status"], error["message"]) == (
            422,
            "body.clip_skip: Input should be less than or equal to 2",
        )
        return
    for call in ("run", "queue"):
        error = error_of(client, target, call, input=quick(**INVALID))
        assert (error["status"], error["type"]) == (422, classes(client, "ValidationError"))
        found = error["field_errors"] if isinstance(client, JavaScriptClient) else error["body"]["detail"]
        assert {tuple(item["loc"]) for item in found} == INVALID_FIELDS
        assert all(item["msg"] and item["type"] for item in found)
        if client is LATEST or isinstance(client, PythonClient):
            assert UUID.fullmatch(error["request_id"])


@feature("result of a failed request")
def test_the_result_of_a_failed_request(client: AnyClient, target: Target) -> None:
    """Triton refuses the input: its status is COMPLETED with an error, its result the error itself."""
    body = quick(loras=[{"path": "no/such.safetensors"}])
    request_id = client.call(target, "submit", input=body)["request_id"]
    target.wait_until(request_id, "COMPLETED")
    status = client.call(target, "status", request_id=request_id)
    assert status["status"] == "COMPLETED"
    if client is not PYTHON_0:
        assert (status["error"], status["error_type"]) == ("Invalid status code: 422", "validation_error")
    error = error_of(client, target, "result", request_id=request_id)
    assert (error["status"], error["type"]) == (422, classes(client, "ValidationError"))
    (found,) = error["body"]["detail"]
    assert found["loc"] == ["body", "loras", 0, "path"]
    assert "no/such.safetensors" in found["msg"]


@feature("result too early: 400")
def test_a_result_too_early(client: AnyClient, target: Target) -> None:
    with target.occupied() as running:
        error = error_of(client, target, "result", request_id=running)
    assert (error["status"], error["body"]) == (400, {"detail": "Request is still in progress"})
    assert error.get("request_id", running) == running


@feature("unknown request: 404")
def test_an_unknown_request(client: AnyClient, target: Target) -> None:
    for call in ("status", "result"):
        error = error_of(client, target, call, request_id=UNKNOWN_ID)
        assert (error["status"], error["type"]) == (404, classes(client))
        assert error["body"] == {"status": "NOT_FOUND"}


@feature("start timeout", in_verify=(PYTHON_ASYNC, PYTHON_0))
def test_a_start_timeout(client: AnyClient, target: Target) -> None:
    """A request that waits too long for its start ends with 504. The client does not send it again."""
    options = {"startTimeout": 1.2} if client is LATEST else {"start_timeout": 1.2}
    with target.occupied():
        begun = time.monotonic()
        error = error_of(client, target, "run", input=quick(), options=options)
        assert time.monotonic() - begun < 10
        assert (error["status"], error["body"]["error_type"]) == (504, "request_timeout")
        queued = error_of(client, target, "queue", input=quick(), options=options)
    assert (queued["status"], queued["body"]) == (504, error["body"])
    if client is LATEST:
        assert error["is_user_timeout"] and queued["is_user_timeout"]


@feature("its own timeout cancels", in_verify=(OF_2025, FIRST, SERVERLESS, PYTHON_ASYNC))
def test_the_clients_own_timeout(client: AnyClient, target: Target) -> None:
    """The client gives up and cancels its request."""
    is_python = isinstance(client, PythonClient)
    options: dict[str, Any] = {"client_timeout": 1.5} if is_python else {"timeout": 500}
    error = error_of(client, target, "subscribe", input=slow(), options=options)
    if is_python:
        assert error["type"] == "FalClientTimeoutError"
    else:
        assert "Client timed out waiting for the request" in error["message"]
    assert target.wait_until(error["request_id"], "COMPLETED").body["error_type"] == "client_cancelled"


def test_a_full_queue(keyed_gateway: Target) -> None:
    """No client has an option for `fal_max_queue_length`: users write it into the URL."""
    path = "/queue/fal-ai/lora/image-to-image"
    with keyed_gateway.occupied():
        first = keyed_gateway.ask(f"{path}?fal_max_queue_length=0", "POST", quick())
        refused = keyed_gateway.ask(f"{path}?fal_max_queue_length=0", "POST", quick())
        assert (first.status, refused.status) == (200, 429)
        assert refused.headers["retry-after"]
        assert keyed_gateway.ask(f"{path}?fal_max_queue_length=1", "POST", quick()).status == 200
