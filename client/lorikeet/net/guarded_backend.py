"""The connections of a download: only to public addresses, checked where the connection is made, and bounded in time.

The check is part of httpcore's network backend, which connects to the address that it checked. So a second DNS answer
cannot bypass the check.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from typing import Any

import httpcore

from lorikeet.net.transfer import Transfer

READ_SECONDS = 30.0
_POLL_SECONDS = 0.5  # how often a download that waits for its server calls `check_cancelled`


class PrivateAddressError(httpcore.ConnectError):
    """The host is not on the public internet, and the operator has not allowed it."""


class GuardedBackend(httpcore.NetworkBackend):
    """Connects only to global addresses, or to hosts that the operator allowed."""

    def __init__(self, allow: frozenset[str], transfer: Transfer) -> None:
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
        if not is_allowed(host, port, self._allow):
            for address in addresses:
                if not is_public(address):
                    raise PrivateAddressError(f"{host} is not a public address")
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

    def __init__(self, stream: httpcore.NetworkStream, transfer: Transfer) -> None:
        self._stream, self._transfer = stream, transfer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silence = time.monotonic() + (READ_SECONDS if timeout is None else timeout)
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


def is_private_literal(host: str) -> bool:
    """Whether a host is an IP address, not a name, and not on the public internet."""
    try:
        return not is_public(host)
    except ValueError:
        return False


def is_allowed(host: str, port: int, allow: frozenset[str]) -> bool:
    """Whether the operator allowed the host (`name` or `name:port`) to be private or to use http."""
    return host.lower() in allow or f"{host.lower()}:{port}" in allow
