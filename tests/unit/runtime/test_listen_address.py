"""The server's address, in sockets and in URLs."""

from __future__ import annotations

import socket

import pytest

from runtime.supervisor.listen_address import address_family, url_host


@pytest.mark.parametrize(
    ("host", "family", "written"),
    [
        ("127.0.0.1", socket.AF_INET, "127.0.0.1"),
        ("localhost", socket.AF_INET, "localhost"),
        ("0.0.0.0", socket.AF_INET, "0.0.0.0"),
        ("::1", socket.AF_INET6, "[::1]"),
        ("::", socket.AF_INET6, "[::]"),
    ],
)
def test_an_address_of_either_family(host: str, family: socket.AddressFamily, written: str) -> None:
    assert (address_family(host), url_host(host)) == (family, written)
