"""Hostile uploads: too large, too slow, broken off, with hostile names and types."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from lorikeet.gateway.files.part_writer import PartWriter
from lorikeet.gateway.routes import upload_body
from tests.unit.gateway.conftest import LIMIT
from tests.unit.gateway.served import Served, serve

BLOCK = bytes(1 << 20)


def stored_bytes(gateway: Served) -> int:
    return sum(path.stat().st_size for path in gateway.objects() if path.exists())


class Watch:
    """The most bytes that lay in the folder for files while it was open, beyond those at its start."""

    def __init__(self, gateway: Served) -> None:
        self._gateway, self._before, self.most = gateway, stored_bytes(gateway), 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._note()

    def _run(self) -> None:
        while not self._ended.wait(0.005):
            self._note()

    def _note(self) -> None:
        self.most = max(self.most, stored_bytes(self._gateway) - self._before)


def send(gateway: Served, method: str, url: str, blocks: int, is_declared: bool, auth: bool) -> tuple[int, bytes]:
    """Send blocks of 1 MiB, as a client that reads the answer only after its last byte."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.settings.port, timeout=60)
    connection.putrequest(method, f"{parts.path}?{parts.query}")
    for name, value in (gateway.auth if auth else {}).items():
        connection.putheader(name, value)
    connection.putheader(*(("Content-Length", str(blocks << 20)) if is_declared else ("Transfer-Encoding", "chunked")))
    connection.endheaders()
    for _ in range(blocks):
        connection.send(BLOCK if is_declared else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
    if not is_declared:
        connection.send(b"0\r\n\r\n")
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content


def check_refusal(gateway: Served, limit: int, method: str, is_declared: bool, blocks: int) -> None:
    url = "/cdn/files/upload" if method == "POST" else gateway.initiate(file_name="a.bin")["upload_url"]
    names = gateway.stored_names()
    with Watch(gateway) as watch:
        status, content = send(gateway, method, url, blocks, is_declared, auth=method == "POST")
    assert (status, b"The file has more than %d bytes" % limit in content) == (413, True)
    assert watch.most <= (0 if is_declared else limit)
    assert gateway.stored_names() == names  # of the PUT, the unfinished upload stays until it expires


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_a_large_upload_is_answered_and_not_stored(gateway: Served, method: str, is_declared: bool) -> None:
    check_refusal(gateway, LIMIT, method, is_declared, 64)


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_an_upload_at_the_limit_is_stored(gateway: Served, method: str, is_declared: bool) -> None:
    url = "/cdn/files/upload" if method == "POST" else gateway.initiate(file_name="a.bin")["upload_url"]
    status, _ = send(gateway, method, url, LIMIT >> 20, is_declared, auth=method == "POST")
    assert status == 200
    assert gateway.newest_object().stat().st_size == LIMIT


@pytest.mark.parametrize("length", ["1" * 400, "-1", "1e3", "0x10"])
def test_a_hostile_length(gateway: Served, length: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=30) as sock:
        head = f"POST /cdn/files/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Key {gateway.key}\r\n"
        sock.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        code = int(sock.recv(4096).split()[1])
    assert code in (400, 413)


@pytest.mark.parametrize("is_part", [False, True], ids=["whole", "part"])
def test_a_client_that_sends_nothing_more_is_dropped(
    gateway: Served, monkeypatch: pytest.MonkeyPatch, is_part: bool
) -> None:
    monkeypatch.setattr(upload_body, "IDLE_SECONDS", 0.3)
    before = len(gateway.objects())
    url = urlsplit(gateway.initiate(file_name="a.bin")["upload_url"])
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=30) as sock:
        path = f"{url.path}{'/1' if is_part else ''}?{url.query}"
        sock.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        begun = time.monotonic()
        answer = b"".join(iter(lambda: sock.recv(4096), b""))  # until the gateway closes the connection
        assert 0.2 < time.monotonic() - begun < 5
    assert answer.split()[1] == b"408"
    assert len(gateway.objects()) == before


def test_a_client_that_vanishes_leaves_nothing(gateway: Served) -> None:
    before, names = len(gateway.objects()), gateway.stored_names()
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=30) as sock:
        head = f"POST /cdn/files/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Key {gateway.key}\r\n"
        sock.sendall(f"{head}Content-Length: {LIMIT}\r\n\r\n".encode() + BLOCK)
        until(lambda: len(gateway.objects()) == before + 1)
    until(lambda: len(gateway.objects()) == before and gateway.stored_names() == names)


def test_a_full_disk_is_answered(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before, names = len(gateway.objects()), gateway.stored_names()
    monkeypatch.setattr(PartWriter, "write", fail)
    reply = gateway.client.post("/cdn/files/upload", content=b"x", headers=gateway.auth)
    assert (reply.status_code, reply.json()["detail"].split(".")[0]) == (507, "The storage is full")
    assert (len(gateway.objects()), gateway.stored_names()) == (before, names)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("cat.PNG", ".png"),
        ("model.safetensors", ".safetensors"),
        ("../../etc/passwd", ".bin"),
        ("/etc/cron.d/x", ".bin"),
        ("a.png/../../b", ".bin"),
        ("x.png\x00.html", ".html"),
        ("x.png\x00", ".bin"),
        ("a" * 300 + ".jpg", ".jpg"),
        ("." * 300, ".bin"),
        ("\u202egnp.exe\u202e", ".bin"),
        ("x.\u0660\u0661", ".bin"),
        ("x.p ng", ".bin"),
        ("x." + "a" * 13, ".bin"),
        ('x"; filename="y.html', ".html"),
        ("", ".bin"),
    ],
)
def test_of_a_hostile_name_only_a_plain_suffix_is_kept(gateway: Served, name: str, suffix: str) -> None:
    stored_type = "application/octet-stream"
    urls = [
        gateway.upload(b"x", stored_type, **{"X-Fal-File-Name": quote(name)}),
        gateway.initiate(content_type=stored_type, file_name=name)["file_url"],
    ]
    for url in urls:
        assert re.fullmatch(re.escape(f"{gateway.url}/cdn/files/") + r"[\w-]{22}" + re.escape(suffix), url), url
    headers = gateway.client.get(urls[0]).headers
    assert headers["content-disposition"] == f'attachment; filename="{urls[0].rpartition("/")[2]}"'


def test_no_object_has_a_name_of_a_client(gateway: Served) -> None:
    gateway.upload(b"x", **{"X-Fal-File-Name": "..%2f..%2fevil.png"})
    assert all(re.fullmatch("[0-9a-f]{32}", path.name) for path in gateway.objects())
    assert {path.name for path in gateway.settings.data.iterdir() if path.is_dir()} == {"files"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("IMAGE/PNG; charset=x", "image/png"),
        ("text/html;\tcharset=utf-7", "text/html"),
        ("nonsense", "application/octet-stream"),
        ("image/png, text/html", "application/octet-stream"),
        ("image/" + "x" * 200, "application/octet-stream"),
        ("", "application/octet-stream"),
    ],
)
def test_a_hostile_content_type(gateway: Served, given: str, kept: str) -> None:
    addresses = gateway.initiate(content_type=given, file_name="a.bin")
    gateway.client.put(addresses["upload_url"], content=b"x", headers={"Content-Type": "text/html"})
    for url in (addresses["file_url"], gateway.upload(b"x", given)):
        assert gateway.client.get(url).headers["content-type"] == kept
    split = gateway.initiate(content_type="image/png\r\nSet-Cookie: a=b", file_name="a.bin")
    gateway.client.put(split["upload_url"], content=b"x")
    found = gateway.client.get(split["file_url"]).headers
    assert (found["content-type"], found.get("set-cookie")) == ("application/octet-stream", None)


@pytest.fixture
def full_size(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as served:
        yield served


@pytest.mark.verify
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_a_gigabyte_is_refused_at_the_limit(full_size: Served, method: str, is_declared: bool) -> None:
    check_refusal(full_size, 512 << 20, method, is_declared, 1024)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
