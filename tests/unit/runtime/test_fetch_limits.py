"""Guarded download from slow, endless and broken web servers: bounded in size and time, cancelled at once."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from lorikeet.net.fetch import Fetcher
from lorikeet.net.transfer import FetchError, Limits
from tests.unit.runtime.downloading import LIMITS, break_off, fetch_body
from tests.unit.runtime.web import Web, endless, endless_headers, redirect, reply, silent


class JobCancelled(Exception):
    """Raised by `check_cancelled` of a cancelled request."""


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_file_of_just_the_allowed_size_comes(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"x" * 1000)
    assert len(fetch_body(fetcher, web.url("/a"))) == 1000


def test_a_file_announced_as_too_large_is_refused_before_it_comes(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"", headers={"Content-Length": "1001"})
    with pytest.raises(FetchError, match="larger than 1000 bytes"):
        fetch_body(fetcher, web.url("/a"))


def test_a_file_that_grows_too_large_is_refused(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = endless(b"x" * 400)
    with pytest.raises(FetchError, match="larger than 1000 bytes"):
        fetch_body(fetcher, web.url("/a"))


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_server_that_trickles_is_left_in_time(web: Web, fetcher: Fetcher, answer: Any) -> None:
    web.answers["/a"] = answer
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"not complete after 0\.3 seconds"):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.3))
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_server_that_trickles_for_long_is_too_slow(web: Web, fetcher: Fetcher, answer: Any) -> None:
    web.answers["/a"] = answer
    with pytest.raises(FetchError, match=r"the download is too slow: \d+ bytes in 0 seconds"):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=60, patience=0.3))


def test_a_server_that_is_not_slow_may_take_its_time(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = endless(b"x" * 1000, 0.02)
    with pytest.raises(FetchError, match="larger than 50000 bytes"):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=50000, seconds=60, patience=0.3))


def test_a_server_that_says_nothing_is_left_in_time(web: Web, fetcher: Fetcher, released: threading.Event) -> None:
    web.answers["/a"] = silent(released)
    with pytest.raises(FetchError, match=r"not complete after 0\.3 seconds"):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.3))


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_cancelled_download_stops_in_the_middle(web: Web, fetcher: Fetcher, answer: Any) -> None:
    begun = time.monotonic()

    def check_cancelled() -> None:
        if time.monotonic() - begun > 0.2:
            raise JobCancelled

    web.answers["/a"] = answer
    with pytest.raises(JobCancelled):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=10, check_cancelled=check_cancelled))
    assert time.monotonic() - begun < 2


def test_a_download_that_waits_for_its_server_can_be_cancelled(
    web: Web, fetcher: Fetcher, released: threading.Event
) -> None:
    cancelled = threading.Event()

    def check_cancelled() -> None:
        if cancelled.is_set():
            raise JobCancelled

    web.answers["/a"] = silent(released)
    threading.Timer(0.1, cancelled.set).start()
    with pytest.raises(JobCancelled):
        fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=10, check_cancelled=check_cancelled))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"not HTTP\r\n\r\n",
        b"",
    ],
)
def test_a_broken_answer_is_an_error(web: Web, fetcher: Fetcher, head: bytes) -> None:
    web.answers["/a"] = break_off(head)
    with pytest.raises(FetchError):
        fetch_body(fetcher, web.url("/a"))


def test_no_tls_where_tls_should_be_is_an_error(web: Web, fetcher: Fetcher) -> None:
    with pytest.raises(FetchError):
        fetcher.fetch(f"https://{web.host}/a", LIMITS)


def test_a_port_where_nobody_listens_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(FetchError):
        Fetcher([host]).fetch(f"http://{host}/a", LIMITS)


@pytest.mark.parametrize("status", [401, 404])
def test_an_error_whose_body_never_ends_is_not_waited_for(web: Web, fetcher: Fetcher, status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()
        endless(b"x" * 5000, 0.05)(handler)

    web.answers["/a"] = answer
    begun = time.monotonic()
    with pytest.raises(FetchError, match=f"the server answered {status}"):
        fetcher.fetch(web.url("/a"), Limits(bytes=1000, seconds=20))
    assert time.monotonic() - begun < 5


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "answer", [reply(b"content"), reply(status=404), redirect("/a"), endless(b"x" * 400), endless_headers(0.05)]
)
def test_no_connection_stays_open(web: Web, fetcher: Fetcher, answer: Any) -> None:
    web.answers["/a"] = answer
    before = _descriptors()
    for _ in range(5):
        with suppress(FetchError):
            fetch_body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.2))
        response = None
        with suppress(FetchError):
            response = fetcher.fetch(web.url("/a"), Limits(bytes=1000, seconds=0.2))
        if response is not None:
            response.close()
    gc.collect()
    deadline = time.monotonic() + 5  # the server's own ends close in its threads
    while _descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _descriptors() <= before
