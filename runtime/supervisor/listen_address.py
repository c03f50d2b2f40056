"""The address on which the server listens, of IPv4 or IPv6."""

from __future__ import annotations

import socket


def address_family(host: str) -> socket.AddressFamily:
    """The family of sockets that bind to `host`: an IP address, or `localhost`, which is taken as IPv4."""
    return socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET


def url_host(host: str) -> str:
    """`host` as it is written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    return ":" in host
