"""Deliveries of webhooks: what a receiver gets, which answers count, and which addresses are never called."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lorikeet.gateway.webhooks import deliver
from lorikeet.gateway.webhooks.deliver import WebhookFailed, WebhookRefused, WebhookSender
from lorikeet.gateway.webhooks.message import Webhook
from lorikeet.gateway.webhooks.signing import WebhookSigner
from tests.gateway.webhook_receiver import WebhookReceiver

SIGNER = WebhookSigner(bytes(range(32)))


def webhook(url: str) -> Webhook:
    return Webhook(url, "request", "user", '{"request_id":"request","status":"OK"}')


@pytest.mark.asyncio
async def test_a_receiver_gets_the_message_and_can_verify_it() -> None:
    with WebhookReceiver() as receiver:
        await WebhookSender(SIGNER, [receiver.host]).deliver(webhook(f"{receiver.url}?key=1"))
    (delivery,) = receiver.deliveries
    assert delivery.path == "/hook?key=1" and delivery.message == {"request_id": "request", "status": "OK"}
    headers = {name: delivery.headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp")}
    assert abs(int(headers["timestamp"]) - time.time()) < 60
    signed = "\n".join([*headers.values(), hashlib.sha256(delivery.body).hexdigest()]).encode()
    key = base64.urlsafe_b64decode(SIGNER.key_set()["keys"][1]["x"])
    Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(delivery.headers["x-fal-webhook-signature"]), signed)


@pytest.mark.parametrize(("status", "error"), [(500, WebhookFailed), (404, WebhookFailed), (302, WebhookRefused)])
@pytest.mark.asyncio
async def test_other_answers_than_2xx_are_failures(status: int, error: type[Exception]) -> None:
    with WebhookReceiver(lambda _: status) as receiver, pytest.raises(error, match=str(status)):
        await WebhookSender(SIGNER, [receiver.host]).deliver(webhook(receiver.url))
    assert len(receiver.deliveries) == 1


@pytest.mark.parametrize("url", ["http://example.com/hook", "ftp://example.com", "https://user:pw@example.com", "no"])
def test_an_address_that_is_no_public_https_is_refused(url: str) -> None:
    with pytest.raises(WebhookRefused):
        WebhookSender(SIGNER, []).check_url(url)


HOSTS = ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.asyncio
async def test_a_private_address_is_never_called(host: str) -> None:
    with WebhookReceiver() as receiver:
        port = receiver.host.rpartition(":")[2]
        with pytest.raises(WebhookRefused, match="not a public address"):
            await WebhookSender(SIGNER, []).deliver(webhook(f"https://{host}:{port}/hook"))
    assert not receiver.deliveries


def _late(_: int) -> int:
    time.sleep(3)
    return 200


@pytest.mark.asyncio
async def test_a_receiver_that_is_silent_is_given_up() -> None:
    with WebhookReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setattr(deliver, "_SECONDS", 0.5)
        patch.setattr(receiver, "status", _late)
        begun = time.monotonic()
        with pytest.raises(WebhookFailed):
            await WebhookSender(SIGNER, [receiver.host]).deliver(webhook(receiver.url))
        assert time.monotonic() - begun < 2.5
