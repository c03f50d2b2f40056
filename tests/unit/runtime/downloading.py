"""Downloads in tests, and a web server that breaks off."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any

from lorikeet.net.fetch import Fetcher
from lorikeet.net.transfer import Limits

LIMITS = Limits(bytes=1000, seconds=10)


def fetch_body(fetcher: Fetcher, url: str, limits: Limits = LIMITS) -> bytes:
    response = fetcher.fetch(url, limits)
    assert response is not None
    return b"".join(response.chunks)


def break_off(head: bytes) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        handler.close_connection = True

    return answer
