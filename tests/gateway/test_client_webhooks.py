"""Webhooks that fal's clients ask for: their messages, and their signatures as receivers verify them."""

from __future__ import annotations

import base64
import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.gateway.fal_clients import AnyClient, PythonClient, run_node
from tests.gateway.features import feature
from tests.gateway.inputs import quick
from tests.gateway.target import Target
from tests.gateway.webhook_receiver import Delivery, WebhookReceiver

LEEWAY_SECONDS = 300


def wait_for(receiver: WebhookReceiver, request_id: str) -> Delivery:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for delivery in receiver.deliveries:
            if delivery.message["request_id"] == request_id:
                return delivery
        time.sleep(0.05)
    raise AssertionError("the webhook did not come")


def verify_as_documented(delivery: Delivery, keys: list[dict[str, str]]) -> bool:
    """The steps of fal's documented Python verifier, which decodes `x` without padding it."""
    header = {name: delivery.headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp")}
    if abs(time.time() - int(header["timestamp"])) > LEEWAY_SECONDS:
        return False
    signed = "\n".join([*header.values(), sha256(delivery.body).hexdigest()]).encode()
    signature = bytes.fromhex(delivery.headers["x-fal-webhook-signature"])
    for key in keys:
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"]))
            public.verify(signature, signed)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


def verify_strictly(delivery: Delivery, keys: list[dict[str, str]], workspace: Path) -> bool:
    """Node's reading of the keys that are RFC 8037's: base64url without padding."""
    job = {
        "keys": [key for key in keys if not key["x"].endswith("=")],
        "headers": delivery.headers,
        "body": delivery.body.decode(),
    }
    done = run_node(workspace, "verify_webhook.mjs", job)
    assert done.returncode == 0, done.stderr
    verified: list[bool] = json.loads(done.stdout)
    return any(verified)


@feature("webhook with a valid signature")
def test_a_webhook(client: AnyClient, target: Target, receiver: WebhookReceiver) -> None:
    options = {"webhook_url" if isinstance(client, PythonClient) else "webhookUrl": f"{receiver.url}?job=1 2&a=ä"}
    body = quick()
    request_id = client.call(target, "submit", input=body, options=options)["request_id"]
    delivery = wait_for(receiver, request_id)
    assert delivery.path == "/hook?job=1%202&a=%C3%A4"
    assert delivery.headers["content-type"] == "application/json"
    assert (delivery.message["status"], delivery.message["payload"]["seed"]) == ("OK", body["seed"])
    assert "error" not in delivery.message
    assert delivery.message["gateway_request_id"] == request_id  # it ran once
    assert delivery.headers["x-fal-webhook-request-id"] == request_id
    keys = target.ask("/rest/.well-known/jwks.json").body["keys"]
    assert verify_as_documented(delivery, keys)
    assert verify_strictly(delivery, keys, target.workspace)
    forged = Delivery(delivery.path, delivery.headers, delivery.body.replace(b'"OK"', b'"ok"'))
    assert not verify_as_documented(forged, keys)
    assert not verify_strictly(forged, keys, target.workspace)


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"clip_skip": 3}, 422, [{"loc": ["body", "clip_skip"]}]),
        ({"loras": [{"path": "no/such.safetensors"}]}, 422, [{"loc": ["body", "loras", 0, "path"]}]),
    ],
)
def test_the_webhook_of_a_failed_request(
    keyed_gateway: Target, receiver: WebhookReceiver, fields: dict[str, Any], status: int, detail: list[dict[str, Any]]
) -> None:
    path = f"/queue/fal-ai/lora/image-to-image?fal_webhook={receiver.url}"
    request_id = keyed_gateway.ask(path, "POST", quick(**fields)).body["request_id"]
    message = wait_for(receiver, request_id).message
    assert (message["status"], message["error"]) == ("ERROR", f"Invalid status code: {status}")
    assert [item["loc"] for item in message["payload"]["detail"]] == [item["loc"] for item in detail]


def test_the_webhook_of_a_cancelled_request(keyed_gateway: Target, receiver: WebhookReceiver) -> None:
    with keyed_gateway.occupied():
        path = f"/queue/fal-ai/lora/image-to-image?fal_webhook={receiver.url}"
        request_id = keyed_gateway.ask(path, "POST", quick()).body["request_id"]
        assert keyed_gateway.ask(f"/queue/fal-ai/lora/requests/{request_id}/cancel", "PUT").status == 200
        message = wait_for(receiver, request_id).message
    assert (message["status"], message["error"]) == ("ERROR", "Invalid status code: 499")
