"""Downloads: bytes, ranges, conditions, headers, private and expired files."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime

import httpx
import pytest

from tests.unit.gateway.served import Served
from tests.unit.gateway.test_parts import PARTS, part, python

SIZE = 3_000_000  # more than the block of a download
CONTENT = bytes(range(251)) * (SIZE // 251)


@pytest.fixture(scope="module", params=["whole", "parts"])
def url(request: pytest.FixtureRequest, gateway: Served) -> str:
    """A file of `CONTENT`, stored whole or in three parts."""
    if request.param == "whole":
        return gateway.upload(CONTENT, "image/png")
    upload = python(gateway)
    pieces = [CONTENT[:1], CONTENT[1:1_500_000], CONTENT[1_500_000:]]
    for number, piece in enumerate(pieces, 1):
        assert upload.put(number, piece).status_code == 200
    assert upload.complete([part(number, piece) for number, piece in enumerate(pieces, 1)]).status_code == 200
    return upload.file_url


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1", 0, 2),
        ("bytes=1-1499999", 1, 1_500_000),
        ("bytes=1499999-1500000", 1_499_999, 1_500_001),
        ("bytes=1048575-2097152", 1_048_575, 2_097_153),
        ("bytes=2000000-", 2_000_000, len(CONTENT)),
        ("bytes=-1", len(CONTENT) - 1, len(CONTENT)),
        ("bytes=-99999999999999999999", 0, len(CONTENT)),
        ("bytes=5-99999999999999999999", 5, len(CONTENT)),
        ("Bytes=7-8", 7, 9),
    ],
)
def test_a_range(gateway: Served, url: str, asked: str, start: int, end: int) -> None:
    reply = gateway.client.get(url, headers={"Range": asked})
    assert reply.status_code == 206
    assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert reply.headers["content-length"] == str(end - start)
    assert reply.content == CONTENT[start:end]


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=99999999999999999999-", "bytes=-0"])
def test_a_range_behind_the_end(gateway: Served, url: str, asked: str) -> None:
    reply = gateway.client.get(url, headers={"Range": asked})
    assert (reply.status_code, reply.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=", "bytes=-", "bytes=5-4", "lines=0-1", "bytes=a-b", "bytes=0-1x", "9" * 6000]
)
def test_what_is_no_single_range_means_the_whole_file(gateway: Served, url: str, asked: str) -> None:
    reply = gateway.client.get(url, headers={"Range": asked})
    assert (reply.status_code, reply.content == CONTENT) == (200, True)


def test_a_download_in_ranges_is_the_file(gateway: Served, url: str) -> None:
    step = 700_001
    pieces = [
        gateway.client.get(url, headers={"Range": f"bytes={at}-{at + step - 1}"}).content
        for at in range(0, len(CONTENT), step)
    ]
    assert b"".join(pieces) == CONTENT == gateway.client.get(url).content


def test_head_has_the_headers_of_get(gateway: Served, url: str) -> None:
    head, get = gateway.client.head(url), gateway.client.get(url)
    assert head.content == b""
    assert {**head.headers, "date": "", "cache-control": ""} == {**get.headers, "date": "", "cache-control": ""}
    assert gateway.client.head(url, headers={"Range": "bytes=1-2"}).headers["content-length"] == "2"


def test_conditions(gateway: Served, url: str) -> None:
    first = gateway.client.get(url)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    later = format_datetime(parsedate_to_datetime(modified) + timedelta(seconds=1), usegmt=True)
    earlier = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)

    def code(**headers: str) -> int:
        return gateway.client.get(url, headers={k.replace("_", "-"): v for k, v in headers.items()}).status_code

    assert code(if_none_match=etag) == code(if_none_match=f'"x", W/{etag}') == code(if_none_match="*") == 304
    assert code(if_none_match='"x"') == code(if_none_match='"x"', if_modified_since=later) == 200
    assert code(if_modified_since=modified) == code(if_modified_since=later) == 304
    assert code(if_modified_since=earlier) == code(if_modified_since="Foo, 99 Bar 99999 99:99:99 GMT") == 200
    assert code(if_none_match=etag, range="bytes=0-1") == 304
    assert code(range="bytes=0-1", if_range=etag) == code(range="bytes=0-1", if_range=modified) == 206
    assert code(range="bytes=0-1", if_range='"x"') == code(range="bytes=0-1", if_range=earlier) == 200
    unchanged = gateway.client.get(url, headers={"If-None-Match": etag})
    assert (unchanged.content, unchanged.headers["etag"]) == (b"", etag)


@pytest.mark.parametrize(
    ("content_type", "is_shown"),
    [
        ("image/png", True),
        ("image/jpeg", True),
        ("text/html", False),
        ("image/svg+xml", False),
        ("application/xhtml+xml", False),
        ("text/javascript", False),
        ("application/pdf", False),
        ("application/octet-stream", False),
    ],
)
def test_nothing_in_a_file_runs(gateway: Served, content_type: str, is_shown: bool) -> None:
    url = gateway.upload(b"<script>alert(1)</script>", content_type)
    headers = gateway.client.get(url).headers
    name = url.rpartition("/")[2]
    assert headers["content-type"] == content_type
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers.get("content-disposition") == (None if is_shown else f'attachment; filename="{name}"')


def lifecycle(seconds: float | None = None, default: str | None = None) -> dict[str, str]:
    preference: dict[str, object] = {} if seconds is None else {"expiration_duration_seconds": seconds}
    if default is not None:
        preference["initial_acl"] = {"default": default}
    return {"X-Fal-Object-Lifecycle": json.dumps(preference)}


def test_a_file_expires(gateway: Served) -> None:
    url = gateway.upload(b"x", **lifecycle(1.0))
    name, before = url.rpartition("/")[2], len(gateway.objects())
    assert gateway.client.get(url).headers["cache-control"] == "public, max-age=0, immutable"
    time.sleep(1.01)
    assert gateway.client.get(url).status_code == gateway.client.head(url).status_code == 404
    assert gateway.client.get(url, headers={"If-None-Match": "*"}).status_code == 404
    gateway.sweep()
    assert len(gateway.objects()) == before - 1
    assert name not in gateway.stored_names()


@pytest.mark.parametrize(
    ("headers", "age"),
    [({}, 7 * 86400), (lifecycle(3600), 3600), (lifecycle(), 365 * 86400)],
    ids=["unset", "1h", "never"],
)
def test_caches_keep_a_file_as_long_as_it_lives(gateway: Served, headers: dict[str, str], age: int) -> None:
    found = gateway.client.get(gateway.upload(b"x", **headers)).headers["cache-control"]
    assert found.startswith("public, max-age=") and found.endswith(", immutable")
    assert age - 30 < int(found.split("=")[1].split(",")[0]) <= age


@pytest.mark.parametrize("default", ["hide", "forbid", "allow"])
def test_a_private_file_is_for_its_owner(gateway: Served, default: str) -> None:
    url = gateway.upload(b"secret", **lifecycle(default=default))
    token = gateway.client.post("/rest/storage/auth/token", json={}, headers=gateway.auth).json()["token"]
    senders: list[dict[str, str]] = [
        {},
        {"Authorization": "Key a:b"},
        gateway.other_auth,
        gateway.auth,
        {"Authorization": f"Bearer {token}"},
    ]
    codes = [gateway.client.get(url, headers=sender).status_code for sender in senders]
    assert codes == ([200] * 5 if default == "allow" else [404, 404, 404, 200, 200])
    headers = gateway.client.get(url, headers=gateway.auth).headers
    assert headers["cache-control"].split(",")[0] == ("public" if default == "allow" else "private")


@pytest.mark.parametrize(
    "text",
    [
        "x", "[1]", '{"expiration_duration_seconds": 0}', '{"expiration_duration_seconds": -1}',
        '{"expiration_duration_seconds": true}', '{"expiration_duration_seconds": "1"}',
        '{"expiration_duration_seconds": 1e999}', '{"expiration_duration_seconds": NaN}',
        '{"expiration_duration_seconds": 1' + "0" * 400 + "}", "[" * 5000, '{"initial_acl": 3}',
    ],
)  # fmt: skip
def test_a_wrong_lifecycle(gateway: Served, text: str) -> None:
    headers = {**gateway.auth, "X-Fal-Object-Lifecycle": text}
    for path in ("/cdn/files/upload", "/cdn/files/upload/multipart", "/rest/storage/upload/initiate"):
        assert gateway.client.post(path, json={}, headers=headers).status_code == 400


@pytest.mark.parametrize(
    "name", ["x", "..", "..%2f..%2fetc%2fpasswd", "%00", "A" * 22, "A" * 4000, "upload", "%ff%fe", "\u202ex.png"]
)
def test_an_unknown_name(gateway: Served, name: str) -> None:
    assert gateway.client.get(f"/cdn/files/{name}").status_code == 404


def test_an_object_that_is_gone_ends_the_download(gateway: Served) -> None:
    url = gateway.upload(b"x" * 10)
    gateway.newest_object().unlink()
    with pytest.raises(httpx.RemoteProtocolError):
        gateway.client.get(url)
    assert gateway.client.get("/rest/.well-known/jwks.json").status_code == 200


def test_the_bytes_of_parts_are_those_of_the_file(gateway: Served) -> None:
    upload = python(gateway)
    for number, piece in enumerate(PARTS, 1):
        upload.put(number, piece)
    upload.complete([part(number, piece) for number, piece in enumerate(PARTS, 1)])
    whole = b"".join(PARTS)
    for start, end in ((0, len(whole)), (99_999, 100_002), (100_001, 300_010), (len(whole) - 1, len(whole))):
        reply = gateway.client.get(upload.file_url, headers={"Range": f"bytes={start}-{end - 1}"})
        assert reply.content == whole[start:end]


def test_a_time_of_modification_is_now(gateway: Served) -> None:
    modified = parsedate_to_datetime(gateway.client.get(gateway.upload(b"x")).headers["last-modified"])
    assert abs(datetime.now(timezone.utc) - modified) < timedelta(seconds=30)
