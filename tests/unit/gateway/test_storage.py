"""Addresses and tokens: `/rest/storage`, `/rest/tokens/`, the key set, and who may use them."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timezone
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lorikeet.gateway import keys
from lorikeet.gateway.auth import BROWSER_TOKEN
from tests.unit.gateway.conftest import ORIGIN
from tests.unit.gateway.served import Served

CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize(
    "path", ["initiate", "initiate?storage_type=gcs", "initiate?storage_type=fal-cdn-v3", "initiate-multipart"]
)
def test_an_upload_in_two_steps(gateway: Served, path: str) -> None:
    addresses = gateway.initiate(path, content_type="image/png", file_name="cat.png")
    assert gateway.client.get(addresses["file_url"]).status_code == 404  # nothing is there yet
    reply = gateway.client.put(addresses["upload_url"], content=CONTENT, headers={"Content-Type": "image/png"})
    assert reply.status_code == 200
    found = gateway.client.get(addresses["file_url"])
    assert found.content == CONTENT
    assert found.headers["content-type"] == "image/png"
    assert addresses["file_url"].endswith(".png")


def test_a_repeated_put_is_accepted_and_another_content_is_not(gateway: Served) -> None:
    addresses = gateway.initiate(content_type="text/plain", file_name="a.txt")
    before = len(gateway.objects())
    assert gateway.client.put(addresses["upload_url"], content=b"first").status_code == 200
    assert gateway.client.put(addresses["upload_url"], content=b"first").status_code == 200
    reply = gateway.client.put(addresses["upload_url"], content=b"other")
    assert reply.status_code == 400
    assert reply.json()["detail"] == "The upload is complete and cannot change. Begin another one."
    assert gateway.client.get(addresses["file_url"]).content == b"first"
    assert len(gateway.objects()) == before + 1


def test_an_address_is_for_one_file(gateway: Served) -> None:
    one, two = (gateway.initiate(content_type="image/png", file_name="a.png") for _ in range(2))
    query = urlsplit(two["upload_url"]).query
    for url in (
        f"{one['upload_url'].partition('?')[0]}?{query}",
        one["upload_url"] + "x",
        one["upload_url"].replace("token=", "token=x."),
        f"{one['upload_url'].partition('?')[0]}?token=",
        f"{one['upload_url'].partition('?')[0]}?token=%00%ff..",
    ):
        assert gateway.client.put(url, content=b"x").status_code == 401, url
    assert gateway.client.put(one["upload_url"].partition("?")[0], content=b"x").status_code == 422


def test_a_storage_token_uploads_and_does_nothing_else(gateway: Served) -> None:
    reply = gateway.client.post("/rest/storage/auth/token?storage_type=fal-cdn-v3", json={}, headers=gateway.auth)
    token = reply.json()
    assert token["base_url"] == f"{gateway.url}/cdn"
    left = datetime.fromisoformat(token["expires_at"]) - datetime.now(timezone.utc)
    assert 3500 < left.total_seconds() <= 3600
    auth = {"Authorization": f"{token['token_type']} {token['token']}"}
    assert gateway.client.post("/cdn/files/upload", content=b"x", headers=auth).status_code == 200
    for path in ("/rest/tokens/", "/rest/storage/auth/token", "/run/fal-ai/lora"):
        assert gateway.client.post(path, json={}, headers=auth).status_code == 401, path


def test_a_browser_token_is_for_its_applications(gateway: Served) -> None:
    body = {"allowed_apps": ["lora"], "token_expiration": 120}
    reply = gateway.client.post("/rest/tokens/", json=body, headers=gateway.auth)
    token = reply.json()
    assert isinstance(token, str)
    # 422: the input {} is invalid, so the token was accepted
    assert gateway.client.post(f"/run/fal-ai/lora?fal_jwt_token={token}", json={}).status_code == 422
    bearer = {"Authorization": f"Bearer {token}"}
    assert gateway.client.post("/run/fal-ai/lora/image-to-image", json={}, headers=bearer).status_code == 422
    for path in ("/rest/tokens/", "/rest/storage/auth/token", "/rest/storage/upload/initiate", "/cdn/files/upload"):
        assert gateway.client.post(path, json={}, headers=bearer).status_code == 401, path
    other = gateway.client.post("/rest/tokens/", json={**body, "allowed_apps": ["flux"]}, headers=gateway.auth).json()
    assert gateway.client.post(f"/run/fal-ai/lora?fal_jwt_token={other}", json={}).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"allowed_apps": ["lora"], "token_expiration": 3601}, "token_expiration"),
        ({"allowed_apps": ["lora"], "token_expiration": 0}, "token_expiration"),
        ({"allowed_apps": [], "token_expiration": 120}, "allowed_apps"),
        ({"allowed_apps": "lora", "token_expiration": 120}, "allowed_apps"),
        ({"token_expiration": 120}, "allowed_apps"),
    ],
)
def test_a_wrong_request_for_a_browser_token(gateway: Served, body: dict[str, object], field: str) -> None:
    reply = gateway.client.post("/rest/tokens/", json=body, headers=gateway.auth)
    assert reply.status_code == 422
    assert [error["loc"] for error in reply.json()["detail"]] == [["body", field]]


def test_a_browser_token_expires(gateway: Served) -> None:
    payload = {"key_id": gateway.key.partition(":")[0], "allowed_apps": ["lora"]}
    codes = []
    for seconds in (60, -1):
        token = gateway.services.tokens.sign(BROWSER_TOKEN, payload, seconds)
        codes.append(gateway.client.post(f"/run/fal-ai/lora?fal_jwt_token={token}", json={}).status_code)
    assert codes == [422, 401]


@pytest.mark.parametrize(
    "path",
    [
        "/rest/storage/upload/initiate",
        "/rest/storage/upload/initiate-multipart",
        "/rest/storage/auth/token",
        "/rest/tokens/",
        "/cdn/files/upload",
        "/cdn/files/upload/multipart",
    ],
)
def test_a_key_is_needed(gateway: Served, path: str) -> None:
    missing = gateway.client.post(path, json={})
    assert (missing.status_code, missing.json()["detail"]) == (
        401,
        "Authentication is required: send the header `Authorization: Key <id>:<secret>`.",
    )
    wrong = gateway.client.post(path, json={}, headers={"Authorization": "Key a:b"})
    assert (wrong.status_code, wrong.json()["detail"]) == (401, "invalid key credentials")


def test_revoking_a_key_ends_its_tokens_and_addresses(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CACHE_SECONDS", 0.0)
    _, key = gateway.services.keys.add("short-lived")
    auth = {"Authorization": f"Key {key}"}
    token = gateway.client.post("/rest/storage/auth/token", json={}, headers=auth).json()["token"]
    addresses = gateway.client.post("/rest/storage/upload/initiate", json={}, headers=auth).json()
    assert gateway.services.keys.revoke(key.partition(":")[0])
    bearer = {"Authorization": f"Bearer {token}"}
    assert gateway.client.post("/cdn/files/upload", content=b"x", headers=bearer).status_code == 401
    assert gateway.client.put(addresses["upload_url"], content=b"x").status_code == 401


def test_the_key_set_is_public_and_holds_the_key_of_webhooks(gateway: Served) -> None:
    reply = gateway.client.get("/rest/.well-known/jwks.json")
    signed = gateway.services.signer.headers("id", "user", 1_700_000_000, b"body")
    message = "\n".join(["id", "user", "1700000000", hashlib.sha256(b"body").hexdigest()]).encode()
    unpadded, padded = sorted((key["x"] for key in reply.json()["keys"]), key=len)
    for raw in (base64.urlsafe_b64decode(padded), base64.urlsafe_b64decode(unpadded + "=")):
        signature = bytes.fromhex(signed["X-Fal-Webhook-Signature"])
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)


@pytest.mark.parametrize("body", [{"content_type": 5}, {"file_name": ["a"]}, [], "text", {"file_name": {"a": 1}}])
def test_a_wrong_request_for_an_address(gateway: Served, body: object) -> None:
    reply = gateway.client.post("/rest/storage/upload/initiate", json=body, headers=gateway.auth)
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"][0] == "body"


def test_the_addresses_through_fals_proxy(gateway: Served) -> None:
    target = {"x-fal-target-url": "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"}
    body = {"content_type": "image/png", "file_name": "a.png"}
    reply = gateway.client.post("/api/fal/proxy", json=body, headers={**gateway.auth, **target})
    assert gateway.client.put(reply.json()["upload_url"], content=CONTENT).status_code == 200
    assert gateway.client.get(reply.json()["file_url"]).content == CONTENT


def test_a_page_of_another_origin_may_upload(gateway: Served) -> None:
    url = gateway.initiate(content_type="image/png", file_name="a.png")["upload_url"]
    asked = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type",
    }
    allowed = gateway.client.options(url, headers=asked)
    assert allowed.status_code == 200
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert "content-type" in allowed.headers["access-control-allow-headers"].lower()
    page = {"Origin": ORIGIN}
    reply = gateway.client.put(url.replace("?", "/1?"), content=b"x", headers=page)
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    assert "etag" in reply.headers["access-control-expose-headers"].lower()
