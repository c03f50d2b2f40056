"""Uploads of the real Python client, `fal-client`, with nothing changed but its addresses and part sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fal_client.client as fal
import pytest
from fal_client import AsyncClient, StorageACL, StorageSettings, SyncClient
from PIL import Image

from tests.unit.gateway.served import Served, serve

CHUNK = 256 << 10
SMALL, LARGE = os.urandom(100_000), os.urandom(5 * CHUNK + 17)


@pytest.fixture
def pointed(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The gateway; the client's addresses are its own, and files of more than 1 MiB go in parts."""
    point(gateway, monkeypatch)
    monkeypatch.setattr(fal, "MULTIPART_THRESHOLD", 1 << 20)
    monkeypatch.setattr(fal, "MULTIPART_CHUNK_SIZE", CHUNK)
    return gateway


def point(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fal, "REST_URL", f"{gateway.url}/rest")
    monkeypatch.setattr(fal, "CDN_URL", f"{gateway.url}/cdn")


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
def test_bytes(pointed: Served, content: bytes) -> None:
    before = len(pointed.objects())
    url = SyncClient(key=pointed.key).upload(content, "image/png", "a.png", repository="fal_v3", fallback_repository=[])
    reply = pointed.client.get(url)
    assert (reply.content == content, reply.headers["content-type"]) == (True, "image/png")
    assert url.startswith(f"{pointed.url}/cdn/files/") and url.endswith(".png")
    assert len(pointed.objects()) == before + (1 if content is SMALL else 6)  # it did go in parts


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
def test_a_file(pointed: Served, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a b.webp"
    path.write_bytes(content)
    url = SyncClient(key=pointed.key).upload_file(path)
    assert pointed.client.get(url).content == content
    assert pointed.client.get(url, headers={"Range": "bytes=7-77777"}).content == content[7:77778]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
async def test_the_asynchronous_client(pointed: Served, tmp_path: Path, content: bytes) -> None:
    client = AsyncClient(key=pointed.key)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for url in (await client.upload(content, "image/png", "a.png"), await client.upload_file(path)):
        assert pointed.client.get(url).content == content


def test_a_picture(pointed: Served) -> None:
    url = SyncClient(key=pointed.key).upload_image(Image.new("RGB", (8, 4), "red"), format="png")
    reply = pointed.client.get(url)
    assert (reply.content[:4], reply.headers["content-type"]) == (b"\x89PNG", "image/png")


def test_the_older_store(pointed: Served) -> None:
    url = SyncClient(key=pointed.key).upload(SMALL, "image/png", "a.png", repository="fal", fallback_repository=[])
    assert pointed.client.get(url).content == SMALL


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "parts"])
def test_lifetime_and_privacy(pointed: Served, content: bytes) -> None:
    settings = StorageSettings(expires_in="1h", initial_acl=StorageACL(default="forbid"))
    url = SyncClient(key=pointed.key).upload(content, "image/png", "a.png", lifecycle=settings)
    assert pointed.client.get(url).status_code == 404
    reply = pointed.client.get(url, headers=pointed.auth)
    assert reply.content == content
    age = int(reply.headers["cache-control"].split("=")[1].split(",")[0])
    assert 3500 < age <= 3600


def test_a_wrong_key(pointed: Served) -> None:
    with pytest.raises(Exception, match="401"):
        SyncClient(key="a:b").upload(SMALL, "image/png", "a.png")


@pytest.fixture
def full_size(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as served:
        yield served


@pytest.mark.verify
def test_parts_of_the_real_size(full_size: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    point(full_size, monkeypatch)
    content = os.urandom(1 << 20) * 123 + b"end"
    url = SyncClient(key=full_size.key).upload(content, "application/octet-stream", "model.safetensors")
    assert len(full_size.objects()) == 13
    assert full_size.client.get(url).content == content
    middle = full_size.client.get(url, headers={"Range": "bytes=10485750-10485770"}).content
    assert middle == content[10485750:10485771]
