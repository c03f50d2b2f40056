"""Guarded download against hostile URLs, DNS servers and web servers."""

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
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorikeet.net.fetch import Fetcher
from lorikeet.net.guarded_backend import is_public
from lorikeet.net.transfer import FetchError, Limits
from tests.unit.runtime.web import Web, endless, endless_headers, redirect, reply, silent

LIMITS = Limits(bytes=1000, seconds=10)
STRICT = Fetcher()  # allows no private host; made once because it reads this machine's certificates


class JobCancelled(Exception):
    """Raised by `check_cancelled` of a cancelled request."""


@pytest.fixture
def fetcher(web: Web) -> Fetcher:
    return Fetcher([web.host])


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def _body(fetcher: Fetcher, url: str, limits: Limits = LIMITS) -> bytes:
    response = fetcher.fetch(url, limits)
    assert response is not None
    return b"".join(response.chunks)


def test_the_body_and_its_etag_come(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"content", headers={"ETag": '"1"'})
    response = fetcher.fetch(web.url("/a"), LIMITS)
    assert response is not None
    assert (b"".join(response.chunks), response.etag) == (b"content", '"1"')


def test_nothing_but_the_file_itself_is_asked_for(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"content")
    _body(fetcher, web.url("/a?token=1"))
    (_, headers) = web.seen[0]
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "If-None-Match"} & set(headers)


def test_an_unchanged_file_is_not_sent_again(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(status=304)
    assert fetcher.fetch(web.url("/a"), LIMITS, '"1"') is None
    assert web.seen[0][1]["If-None-Match"] == '"1"'


@pytest.mark.parametrize("status", [204, 206, 401, 404, 500, 302])
def test_any_other_answer_is_an_error(web: Web, fetcher: Fetcher, status: int) -> None:
    web.answers["/a"] = reply(status=status)
    with pytest.raises(FetchError, match=f"the server answered {status}"):
        fetcher.fetch(web.url("/a"), LIMITS)


def test_plain_http_is_refused(web: Web) -> None:
    with pytest.raises(FetchError, match="only https"):
        STRICT.fetch(web.url("/a"), LIMITS)
    assert web.seen == []


def test_only_the_port_that_was_allowed_is_allowed(web: Web, fetcher: Fetcher) -> None:
    with pytest.raises(FetchError, match="only https"):
        fetcher.fetch("http://127.0.0.1:1/a", LIMITS)
    with pytest.raises(FetchError, match="not a public address"):
        fetcher.fetch("https://127.0.0.1:1/a", LIMITS)


def test_a_host_allowed_by_name_is_allowed_on_every_port(web: Web) -> None:
    web.answers["/a"] = reply(b"content")
    assert _body(Fetcher(["127.0.0.1"]), web.url("/a")) == b"content"


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "2606:4700:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_a_public_address(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # cloud metadata
        "100.64.0.1",  # CGNAT
        "100.127.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "fec0::1",  # site-local
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",  # IPv4-compatible
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::1",
        "64:ff9b::10.0.0.1",  # NAT64
        "64:ff9b:1::10.0.0.1",
        "2001:0:7f00:1::",  # Teredo
    ],
)
def test_no_public_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_refused_whatever_it_is_called(web: Web, host: str) -> None:
    with pytest.raises(FetchError, match=r"not a public address|has no address"):
        STRICT.fetch(f"https://{host}:{web.host.partition(':')[2]}/a", LIMITS)
    assert web.seen == []


def _dns(*addresses: str) -> Any:
    """Every name has these addresses."""
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    return mock.patch.object(socket, "getaddrinfo", lambda *_, **__: entries)


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("169.254.169.254", "8.8.8.8")])
def test_a_name_that_leads_into_a_private_net_is_refused(addresses: tuple[str, ...]) -> None:
    with (
        _dns(*addresses),
        mock.patch.object(socket, "create_connection", side_effect=AssertionError("connected")),
        pytest.raises(FetchError, match=r"example\.com is not a public address"),
    ):
        STRICT.fetch("https://example.com/a", LIMITS)


def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    with (
        _dns("8.8.8.8"),
        mock.patch.object(socket, "create_connection", side_effect=OSError("no route")) as connect,
        pytest.raises(FetchError, match="no route"),
    ):
        STRICT.fetch("https://example.com/a", LIMITS)
    assert [call.args[0] for call in connect.call_args_list] == [("8.8.8.8", 443)]


def test_a_redirect_is_followed(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("b/c"), "/b/c": redirect(web.url("/d")), "/d": reply(b"content")}
    assert _body(fetcher, web.url("/a")) == b"content"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://127.0.0.1:1/a", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "not a public address"),
        ("http://8.8.8.8/a", "only https"),
        ("file:///etc/passwd", "only https"),
        ("ftp://8.8.8.8/a", "only https"),
        ("https://user:secret@8.8.8.8/", "user name or password"),
        ("https://[/", "invalid URL"),
    ],
)
def test_a_redirect_is_checked_as_the_first_url_was(web: Web, fetcher: Fetcher, location: str, reason: str) -> None:
    web.answers["/a"] = redirect(location)
    with pytest.raises(FetchError, match=reason):
        fetcher.fetch(web.url("/a"), LIMITS)


def test_redirects_in_a_circle_end(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetcher.fetch(web.url("/a"), LIMITS)
    assert len(web.seen) == 6


def test_a_file_of_just_the_allowed_size_comes(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"x" * 1000)
    assert len(_body(fetcher, web.url("/a"))) == 1000


def test_a_file_announced_as_too_large_is_refused_before_it_comes(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = reply(b"", headers={"Content-Length": "1001"})
    with pytest.raises(FetchError, match="larger than 1000 bytes"):
        _body(fetcher, web.url("/a"))


def test_a_file_that_grows_too_large_is_refused(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = endless(b"x" * 400)
    with pytest.raises(FetchError, match="larger than 1000 bytes"):
        _body(fetcher, web.url("/a"))


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_server_that_trickles_is_left_in_time(web: Web, fetcher: Fetcher, answer: Any) -> None:
    web.answers["/a"] = answer
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"not complete after 0\.3 seconds"):
        _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.3))
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_server_that_trickles_for_long_is_too_slow(web: Web, fetcher: Fetcher, answer: Any) -> None:
    web.answers["/a"] = answer
    with pytest.raises(FetchError, match=r"the download is too slow: \d+ bytes in 0 seconds"):
        _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=60, patience=0.3))


def test_a_server_that_is_not_slow_may_take_its_time(web: Web, fetcher: Fetcher) -> None:
    web.answers["/a"] = endless(b"x" * 1000, 0.02)
    with pytest.raises(FetchError, match="larger than 50000 bytes"):
        _body(fetcher, web.url("/a"), Limits(bytes=50000, seconds=60, patience=0.3))


def test_a_server_that_says_nothing_is_left_in_time(web: Web, fetcher: Fetcher, released: threading.Event) -> None:
    web.answers["/a"] = silent(released)
    with pytest.raises(FetchError, match=r"not complete after 0\.3 seconds"):
        _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.3))


@pytest.mark.parametrize("answer", [endless(b"x", 0.05), endless_headers(0.05)])
def test_a_cancelled_download_stops_in_the_middle(web: Web, fetcher: Fetcher, answer: Any) -> None:
    begun = time.monotonic()

    def check_cancelled() -> None:
        if time.monotonic() - begun > 0.2:
            raise JobCancelled

    web.answers["/a"] = answer
    with pytest.raises(JobCancelled):
        _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=10, check_cancelled=check_cancelled))
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
        _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=10, check_cancelled=check_cancelled))


def _break_off(head: bytes) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        handler.close_connection = True

    return answer


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
    web.answers["/a"] = _break_off(head)
    with pytest.raises(FetchError):
        _body(fetcher, web.url("/a"))


def test_no_tls_where_tls_should_be_is_an_error(web: Web, fetcher: Fetcher) -> None:
    with pytest.raises(FetchError):
        fetcher.fetch(f"https://{web.host}/a", LIMITS)


def test_a_port_where_nobody_listens_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(FetchError):
        Fetcher([host]).fetch(f"http://{host}/a", LIMITS)


@pytest.mark.parametrize("url", ["https://user@8.8.8.8/", "https://user:secret@8.8.8.8/", "https://:secret@8.8.8.8/"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(FetchError, match="user name or password") as caught:
        STRICT.fetch(url, LIMITS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///a",
        "https://exa mple.com/",
        "https://exam\nple.com/",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com/\0",
        "https://[::1",
        "https://example.com:port/",
        "https://example.com:70000/",
        "//example.com/a",
        "",
    ],
)
def test_no_url_is_no_url(url: str) -> None:
    with pytest.raises(FetchError, match=r"not a valid URL|only https"):
        STRICT.fetch(url, LIMITS)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("/my picture.png", "/my%20picture.png"),
        ("/my%20picture.png", "/my%20picture.png"),
        ("/青禅_ZEN.safetensors \n", "/%E9%9D%92%E7%A6%85_ZEN.safetensors"),
        ("/a;b=c.png", "/a;b=c.png"),
        ("/a/../b.png#top", "/b.png"),
    ],
)
def test_a_url_is_asked_for_as_a_browser_asks(web: Web, fetcher: Fetcher, written: str, asked: str) -> None:
    web.answers[asked] = reply(b"content")
    assert _body(fetcher, web.url(written)) == b"content"


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/my picture.png", "/my%20picture.png"),
        ("/картинка.png".encode(), "/%D0%BA%D0%B0%D1%80%D1%82%D0%B8%D0%BD%D0%BA%D0%B0.png"),
        ("/peñ.png".encode("latin-1"), "/pe%F1.png"),
        (b"/pe%C3%B1.png", "/pe%C3%B1.png"),
        (b"b;c//d.png?response-content-disposition=attachment; filename=x y", "/b;c//d.png"),
    ],
)
def test_a_redirect_may_be_written_in_any_alphabet(web: Web, fetcher: Fetcher, location: bytes, asked: str) -> None:
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    web.answers |= {"/a": _break_off(answer), asked: reply(b"content")}
    assert _body(fetcher, web.url("/a")) == b"content"


def test_the_answer_names_where_redirects_led(web: Web, fetcher: Fetcher) -> None:
    web.answers |= {"/a": redirect("/login?secret=1"), "/login": reply(b"content"), "/b": redirect("/none?secret=1")}
    response = fetcher.fetch(web.url("/a"), LIMITS)
    assert response is not None
    assert response.origin == f" after a redirect to {web.url('/login')}"
    response.close()
    with pytest.raises(FetchError, match=f"^the server answered 404 after a redirect to {web.url('/none')}$"):
        fetcher.fetch(web.url("/b"), LIMITS)


@pytest.mark.parametrize("status", [401, 403])
def test_a_host_that_wants_a_token_is_explained(web: Web, fetcher: Fetcher, status: int) -> None:
    body = b'{"error":"Unauthorized","message":"The creator requires you to be logged in"}'
    web.answers["/a"] = reply(body, status)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(web.url("/a"), LIMITS)
    assert str(caught.value) == (
        f"the server answered {status}: the host wants a token, see LORIKEET_TOKENS "
        "(Unauthorized: The creator requires you to be logged in)"
    )
    with pytest.raises(FetchError, match="send the file"):
        Fetcher([web.host], denied="send the file").fetch(web.url("/a"), LIMITS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"Entry not found", "Entry not found"),
        (b"<html><title>Not &amp; found</title>", "Not & found"),
        (b'{"detail": "' + b"x" * 9000, "x" * 157 + "..."),
        (
            b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message>",
            "AccessDenied: Request has expired",
        ),
        (b"two\r\nlines \x1b[31m", "two"),
    ],
)
def test_the_servers_own_message_is_cut(web: Web, fetcher: Fetcher, body: bytes, said: str) -> None:
    web.answers["/a"] = reply(body, 404)
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(web.url("/a"), LIMITS)
    assert str(caught.value) == f"the server answered 404 ({said})"


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
            _body(fetcher, web.url("/a"), Limits(bytes=1000, seconds=0.2))
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


@given(st.text(max_size=40))
@example("a..b")
@example("x" * 64 + ".com")
@example("8.8.8.8:0")
@example("xn--.com")
def test_whatever_follows_https_is_fetched_or_refused(rest: str) -> None:
    with (
        mock.patch.object(socket, "create_connection", side_effect=OSError("no network")),
        pytest.raises(FetchError),
    ):
        STRICT.fetch(f"https://{rest}", LIMITS)
