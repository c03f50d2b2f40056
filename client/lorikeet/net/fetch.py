"""Guarded download: https to public addresses, checked at every connection and redirect, bounded in size and time.

A request names the URL, so the URL may be hostile. The check is part of httpcore's network backend and connects to the
address that it checked. So a second DNS answer cannot bypass the check.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

_MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
_POLL_SECONDS = 0.5  # how often a download that waits for its server calls `check_cancelled`
_SLOWEST = 1000  # bytes a second; a slower download would occupy a worker thread for too long
_USER_AGENT = b"lorikeet/0.1"


class FetchError(Exception):
    """The URL was refused or could not be read. The message gives the reason and may be sent to the client."""


class UnreachableError(FetchError):
    """The server does not answer, or reports an error of its own. An earlier download may still be valid."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one download. `bytes`: largest body. `seconds`: total time. `check_cancelled` is called often; it
    raises when the job was cancelled. After `patience` seconds the mean rate must be at least 1000 bytes a second."""

    bytes: int
    seconds: float
    check_cancelled: Callable[[], None] = field(default=lambda: None)
    patience: float = 30.0


class Fetcher:
    """Downloads over https. `allow`: hosts (`name` or `name:port`) that may have private addresses or use http.
    `host_tokens`: host -> bearer token; a token is sent only to its host."""

    def __init__(self, allow: Iterable[str] = (), host_tokens: Mapping[str, str] | None = None) -> None:
        self._allow, self._host_tokens = frozenset(allow), dict(host_tokens or {})
        self._ssl = ssl.create_default_context()

    def fetch(self, url: str, limits: Limits, etag: str | None = None) -> Response | None:
        """Open the URL and follow its redirects. None when the server answers that `etag` is still current.

        Raises FetchError when the URL is refused. Errors while the body is read are raised by the chunks' iterator.
        """
        transfer = _Transfer(limits, time.monotonic())
        pool = httpcore.ConnectionPool(
            ssl_context=self._ssl, network_backend=_GuardedBackend(self._allow, transfer), max_keepalive_connections=0
        )
        asked = url
        for _ in range(_MAX_REDIRECTS + 1):
            self._check(url)
            host = urlsplit(url).netloc.encode("ascii")
            headers = [(b"Host", host), (b"User-Agent", _USER_AGENT)]
            headers += [(b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
            if etag:
                headers.append((b"If-None-Match", etag.encode("latin-1")))
            if token := self._token(asked, url):
                headers.append((b"Authorization", f"Bearer {token}".encode("ascii")))
            response = _open(pool, url, headers)
            names = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and b"location" in names:
                response.close()
                url = _target(url, names[b"location"])
                continue
            if response.status == 304:
                response.close()
                return None
            if response.status != 200:
                response.close()
                error = UnreachableError if response.status >= 500 else FetchError
                raise error(f"the server answered {response.status}")
            return Response(names.get(b"etag"), _chunks(response, names.get(b"content-length"), transfer))
        raise FetchError(f"more than {_MAX_REDIRECTS} redirects")

    def _token(self, asked: str, url: str) -> str | None:
        """The token of the requested URL's host. None after a redirect to another host, and over plain http."""
        return self._host_tokens.get(_origin(url)) if _origin(url) == _origin(asked) else None

    def _check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise FetchError("not a valid URL") from error
        if parts.scheme != "https" and not (parts.scheme == "http" and _allowed(host or "", port or 80, self._allow)):
            raise FetchError("only https URLs are fetched")
        if not host or not url.isascii() or any(c <= " " for c in url):
            raise FetchError("not a valid URL")
        if parts.username or parts.password:
            raise FetchError("a URL with a user name or password is not fetched; remove it from the URL")


def _open(pool: httpcore.ConnectionPool, url: str, headers: list[tuple[bytes, bytes]]) -> httpcore.Response:
    seconds = {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS}
    try:
        return pool.handle_request(httpcore.Request("GET", url, headers=headers, extensions={"timeout": seconds}))
    except _CONNECTION_ERRORS as error:
        raise UnreachableError(_message(error)) from error


def _origin(url: str) -> str:
    """`host` for port 443, else `host:port`. "" unless the scheme is https."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    return parts.hostname if parts.port in (None, 443) else f"{parts.hostname}:{parts.port}"


def _target(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError("the redirect leads to an invalid URL") from error


@dataclass(frozen=True)
class Response:
    """The server's answer: its ETag, if any, and the body in chunks."""

    etag: str | None
    chunks: Iterator[bytes]


@dataclass
class _Transfer:
    """The progress of one download: `begun` in seconds of time.monotonic(), `received` in bytes."""

    limits: Limits
    begun: float
    received: int = 0

    def left(self, seconds: float | None = None) -> float:
        """The seconds left, at most `seconds`. Raises FetchError if none are left, or what `check_cancelled` raises."""
        self.limits.check_cancelled()
        spent = time.monotonic() - self.begun
        left = self.limits.seconds - spent
        if left <= 0:
            raise FetchError(f"not complete after {self.limits.seconds:g} seconds")
        if spent > self.limits.patience and self.received < _SLOWEST * spent:
            raise FetchError(f"the download is too slow: {self.received} bytes in {spent:.0f} seconds")
        return left if seconds is None else min(left, seconds)


class _GuardedBackend(httpcore.NetworkBackend):
    """Connects only to global addresses, or to hosts that the operator allowed."""

    def __init__(self, allow: frozenset[str], transfer: _Transfer) -> None:
        self._allow, self._transfer = allow, transfer
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
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that no domain name can have
            raise httpcore.ConnectError(f"{host} has no address") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not _allowed(host, port, self._allow):
            for address in addresses:
                if not is_public(address):
                    raise httpcore.ConnectError(f"{host} is not a public address")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                seconds = self._transfer.left(timeout)
                stream = self._plain.connect_tcp(address, port, seconds, local_address, socket_options)
                return _TimedStream(stream, self._transfer)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connection whose waits end when its download must end, even if the server sends little or nothing."""

    def __init__(self, stream: httpcore.NetworkStream, transfer: _Transfer) -> None:
        self._stream, self._transfer = stream, transfer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silence = time.monotonic() + (_READ_SECONDS if timeout is None else timeout)
        while True:
            try:
                found = self._stream.read(max_bytes, self._transfer.left(_POLL_SECONDS))
                self._transfer.received += len(found)
                return found
            except httpcore.ReadTimeout:
                if time.monotonic() > silence:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._transfer.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._transfer.left(timeout))
        return _TimedStream(stream, self._transfer)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def is_public(address: str) -> bool:
    """Whether an IP address (as text) is on the public internet: not private, loopback, link-local, multicast, ..."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # For an IPv4 address inside an IPv6 one (mapped, 6to4, NAT64), the IPv4 address decides.
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or ip.is_reserved:  # site-local and IPv4-compatible addresses; `is_global` is true for them
            return False
    return ip.is_global and not ip.is_multicast


def _allowed(host: str, port: int, allow: frozenset[str]) -> bool:
    return host.lower() in allow or f"{host.lower()}:{port}" in allow


def _chunks(response: httpcore.Response, length: str | None, transfer: _Transfer) -> Iterator[bytes]:
    """The body in chunks. Raises FetchError when it exceeds its limits or the connection fails."""
    limits = transfer.limits
    try:
        if length is not None and length.isdigit() and int(length) > limits.bytes:
            raise FetchError(f"larger than {limits.bytes} bytes")
        got = 0
        for chunk in response.iter_stream():
            transfer.left()
            got += len(chunk)
            if got > limits.bytes:
                raise FetchError(f"larger than {limits.bytes} bytes")
            yield chunk
    except _CONNECTION_ERRORS as error:
        raise FetchError(_message(error)) from error
    finally:
        response.close()


_CONNECTION_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)


def _message(error: BaseException) -> str:
    if isinstance(error, httpcore.TimeoutException):
        return "the server did not answer in time"
    return str(error) or "the connection failed"
