"""Text that is no Unicode, in whatever a client sends, gets an answer that names the fault."""

from __future__ import annotations

import pytest

from tests.unit.gateway.served import Served

HALF = r"\ud800"  # an escape of JSON: half of a surrogate pair
BROKEN = b"\xed\xa0\x80"  # the bytes that it would have
BODIES = [
    rf'{{"model_name": "m", "prompt": "{HALF}"}}',
    rf'{{"model_name": "m", "prompt": "p", "scheduler": "{HALF}"}}',
    rf'{{"model_name": "m", "prompt": "p", "loras": [{{"path": "{HALF}"}}]}}',
    rf'{{"model_name": "m", "prompt": "p", "foo": ["a{HALF}"]}}',
    rf'{{"model_name": "m", "prompt": "p", "{HALF}": 1}}',
    rf'{{"allowed_apps": ["{HALF}"], "file_name": "{HALF}"}}',
]
JSON_ROUTES = [
    "/queue/fal-ai/lora",
    "/run/fal-ai/lora",
    "/run/fal-ai/lora/image-to-image/stream",
    "/rest/storage/upload/initiate",
    "/rest/tokens/",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("route", JSON_ROUTES)
def test_half_of_a_surrogate_pair_is_refused(gateway: Served, route: str, body: str) -> None:
    reply = gateway.client.post(route, content=body, headers={**gateway.auth, "Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["msg"].startswith("text must be valid Unicode")


def test_a_whole_pair_is_text(gateway: Served) -> None:
    body = r'{"model_name": "m", "prompt": "\ud83d\ude00", "foo": "\ud83d\ude00"}'
    reply = gateway.client.post("/queue/fal-ai/lora", content=body, headers=gateway.auth)
    assert reply.status_code == 200
    gateway.client.put(f"/queue/fal-ai/lora/requests/{reply.json()['request_id']}/cancel", headers=gateway.auth)


@pytest.mark.parametrize("value", [b"%ED%A0%80.png", BROKEN, b"%FF%FE"])
def test_a_file_name_that_is_no_text_is_ignored(gateway: Served, value: bytes) -> None:
    headers = {**{name.encode(): text.encode() for name, text in gateway.auth.items()}, b"X-Fal-File-Name": value}
    reply = gateway.client.post("/cdn/files/upload", content=b"x", headers=headers)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("method", "path", "name", "value", "status"),
    [
        ("POST", "/queue/fal-ai/lora", "Idempotency-Key", BROKEN, 200),
        ("POST", "/queue/fal-ai/lora", "X-Fal-Object-Lifecycle-Preference", b'{"initial_acl": "\\ud800"}', 400),
        ("POST", "/queue/fal-ai/lora", "Authorization", b"Key " + BROKEN, 401),
        ("POST", "/queue/fal-ai/lora?fal_webhook=https://a.example/%ED%A0%80", "X-Any", b"", 200),
        ("POST", "/queue/fal-ai/lora?fal_webhook=https://%ED%A0%80.example/", "X-Any", b"", 400),
        ("POST", "/queue/fal-ai/lora?fal_jwt_token=%ED%A0%80.%ED%A0%80", "X-Any", b"", 401),
        ("GET", "/queue/fal-ai/lora/requests/%ED%A0%80/status", "X-Any", b"", 404),
        ("GET", "/cdn/files/%ED%A0%80", "X-Any", b"", 404),
        ("GET", "/%ED%A0%80", "X-Any", b"", 404),
    ],
)
def test_other_parts_of_a_request_are_answered(
    gateway: Served, method: str, path: str, name: str, value: bytes, status: int
) -> None:
    headers = {**{key.encode(): text.encode() for key, text in gateway.auth.items()}, name.encode(): value}
    reply = gateway.client.request(method, path, json={"model_name": "m"}, headers=headers)
    assert reply.status_code == status, reply.text
