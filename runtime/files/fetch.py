"""Guarded download: https to public addresses, checked at every connection and redirect, bounded in size and time.

A request names the URL, so it is hostile. The address that was checked is the address that is connected to (the check
sits in httpcore's network backend), so a second DNS answer cannot differ from the first.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

_MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
_USER_AGENT = b"lorikeet/0.1"


class FetchError(Exception):
    """The URL was refused or could not be read; the message says why and is fit for the client."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one download: bytes, seconds in all, and `stop`, asked at every chunk, which may raise."""

    bytes: int
    seconds: float
    stop: Callable[[], None] = field(default=lambda: None)


class Fetcher:
    """Downloads over https. `allow` names hosts (`name` or `name:port`) that may be private or plain http."""

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._allow = frozenset(allow)
        backend = _GuardedBackend(self._allow)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=backend, max_connections=64
        )

    def fetch(self, url: str, limits: Limits, etag: str | None = None) -> Response | None:
        """Open the URL, redirects followed; None when the server says that `etag` still holds.

        Raises FetchError at once for what is refused, and from the chunks' iterator for what goes wrong later.
        """
        deadline = time.monotonic() + limits.seconds
        for _ in range(_MAX_REDIRECTS + 1):
            self._check(url)
            headers = [(b"User-Agent", _USER_AGENT), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
            if etag:
                headers.append((b"If-None-Match", etag.encode("latin-1")))
            response = self._open(url, headers, limits)
            names = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in names:
                response.close()
                url = urljoin(url, names[b"location"])
                continue
            if response.status == 304:
                response.close()
                return None
            if response.status != 200:
                response.close()
                raise FetchError(f"the server answered {response.status}")
            return Response(names.get(b"etag"), _chunks(response, names.get(b"content-length"), limits, deadline))
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    def _open(self, url: str, headers: list[tuple[bytes, bytes]], limits: Limits) -> httpcore.Response:
        seconds = {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS, "pool": limits.seconds}
        try:
            request = httpcore.Request("GET", url, headers=headers, extensions={"timeout": seconds})
            return self._pool.handle_request(request)
        except _TROUBLE as error:
            raise FetchError(_say(error)) from error

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise FetchError("not a valid URL") from error
        if not host or not url.isascii() or any(c <= " " for c in url):
            raise FetchError("not a valid URL")
        if parts.scheme != "https" and not (parts.scheme == "http" and _allowed(host, port or 80, self._allow)):
            raise FetchError("only https URLs are fetched")
        if parts.username or parts.password:
            raise FetchError("a URL with a user name or password is not fetched")


@dataclass(frozen=True)
class Response:
    """What came: the ETag, if any, and the body as chunks."""

    etag: str | None
    chunks: Iterator[bytes]


class _GuardedBackend(httpcore.NetworkBackend):
    """Connects only to global addresses, or to hosts that the operator allowed."""

    def __init__(self, allow: frozenset[str]) -> None:
        self._allow = allow
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not _allowed(host, port, self._allow):
            for address in addresses:
                if not is_public(address):
                    raise httpcore.ConnectError(f"{host} is not a public address")
        trouble: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                trouble = error
        raise trouble


def is_public(address: str) -> bool:
    """Whether an IP address (as text) is reachable by everyone: not private, loopback, link-local, multicast, ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes (mapped, 6to4, NAT64) is judged as what it leads to.
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _allowed(host: str, port: int, allow: frozenset[str]) -> bool:
    return host.lower() in allow or f"{host.lower()}:{port}" in allow


def _chunks(response: httpcore.Response, length: str | None, limits: Limits, deadline: float) -> Iterator[bytes]:
    """The body, held to its limits and to the length that the server announced."""
    try:
        if length is not None and length.isdigit() and int(length) > limits.bytes:
            raise FetchError(f"larger than {limits.bytes} bytes")
        got = 0
        for chunk in response.iter_stream():
            limits.stop()
            got += len(chunk)
            if got > limits.bytes:
                raise FetchError(f"larger than {limits.bytes} bytes")
            if time.monotonic() > deadline:
                raise FetchError(f"not complete after {limits.seconds:g} seconds")
            yield chunk
    except _TROUBLE as error:
        raise FetchError(_say(error)) from error
    finally:
        response.close()


_TROUBLE = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)


def _say(error: BaseException) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "the server did not answer in time"
    return str(error) or "the connection failed"
