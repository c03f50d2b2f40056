"""Guarded download: hostile URLs, DNS servers and redirects."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorikeet.net.fetch import Fetcher
from lorikeet.net.guarded_backend import is_public
from lorikeet.net.transfer import FetchError
from tests.unit.runtime.downloading import LIMITS, fetch_body
from tests.unit.runtime.web import Web, redirect, reply

STRICT = Fetcher()  # allows no private host; made once because it reads this machine's certificates


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
    assert fetch_body(Fetcher(["127.0.0.1"]), web.url("/a")) == b"content"


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
