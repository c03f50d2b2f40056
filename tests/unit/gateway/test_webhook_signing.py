"""Webhook signatures: the specification's vector, and fal's documented way to verify them."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lorikeet.gateway.webhooks.signing import WebhookSigner

REQUEST_ID = "123e4567-e89b-12d3-a456-426614174000"
BODY = json.dumps(
    {"request_id": REQUEST_ID, "gateway_request_id": REQUEST_ID, "status": "OK", "payload": {"seed": 1}},
    separators=(",", ":"),
).encode()
SIGNATURE = (
    "50815a255bd4c97d2f7fe12c1d7607a8ce343ced3ca4783de15d6b577831f2d5"
    "6b79c7fc01026dc9ab6311184cc5b0ea78aa51c38ced90a43c0c7b66c97df904"
)
SIGNER = WebhookSigner(bytes(range(32)))


def test_the_signature_is_that_of_the_specification() -> None:
    headers = SIGNER.headers(REQUEST_ID, "local", 1700000000, BODY)
    assert headers == {
        "X-Fal-Webhook-Request-Id": REQUEST_ID,
        "X-Fal-Webhook-User-Id": "local",
        "X-Fal-Webhook-Timestamp": "1700000000",
        "X-Fal-Webhook-Signature": SIGNATURE,
    }


def test_the_key_is_published_with_and_without_padding() -> None:
    strict, padded = (key["x"] for key in SIGNER.key_set()["keys"])
    assert padded == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=" and strict == padded.rstrip("=")
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(padded))
    digest = "eaca9fe95476f603726c122bd1726bea3bbc526c5a692037af2a7b46e37218ba"
    message = "\n".join([REQUEST_ID, "local", "1700000000", digest]).encode()
    key.verify(bytes.fromhex(SIGNATURE), message)
    with pytest.raises(InvalidSignature):
        key.verify(bytes.fromhex(SIGNATURE), message + b"x")
