"""A small HTTP server for `/health` and `/metrics`. It also answers while tritonserver does not run."""

from __future__ import annotations

import json
import socket
import socketserver
import sys
import threading
import time
from typing import Any

from typing_extensions import Self

from runtime.metrics.prometheus_text import CONTENT_TYPE
from runtime.supervisor.listen_address import address_family
from runtime.supervisor.status import OK, Status

_MAX_REQUEST_BYTES = 8192
_MAX_CONNECTIONS = 32  # further ones are closed at once
_SECONDS = 2.0  # for all of a request, and then for all of its answer
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class _Refused(Exception):
    """The request gets an error; `code` is the HTTP status."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class StatusServer(socketserver.ThreadingTCPServer):
    """Answers GET requests in threads of its own. As a context manager, it serves until the exit."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, host: str, port: int, status: Status) -> None:
        """Port 0 is a free one. Raises OSError when the port is in use."""
        self.address_family = address_family(host)
        self.status = status
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__((host, port), _Connection)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, name="status", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error of this server. An OSError means that the client has gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Connection(socketserver.BaseRequestHandler):
    """One request on one connection, which is then closed."""

    request: socket.socket
    server: StatusServer

    def handle(self) -> None:
        try:
            code, kind, body = self._answer(_path(self._head()))
        except _Refused as refused:
            code, kind, body = refused.code, "text/plain; charset=utf-8", f"{_PHRASES[refused.code]}\n"
        content = body.encode()
        head = [
            f"HTTP/1.1 {code} {_PHRASES[code]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(content)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET"] if code == 405 else []),
        ]
        self.request.settimeout(_SECONDS)
        self.request.sendall("\r\n".join([*head, "", ""]).encode() + content)

    def _head(self) -> bytes:
        """The request up to its first empty line. A client that sends slowly gets `_SECONDS` for all of it."""
        received, deadline = b"", time.monotonic() + _SECONDS
        while b"\r\n\r\n" not in received:
            if len(received) > _MAX_REQUEST_BYTES:
                raise _Refused(431)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise _Refused(408)
            self.request.settimeout(remaining)
            try:
                chunk = self.request.recv(_MAX_REQUEST_BYTES)
            except TimeoutError as error:
                raise _Refused(408) from error
            if not chunk:
                raise _Refused(400)
            received += chunk
        return received

    def _answer(self, path: str) -> tuple[int, str, str]:
        """Status code, content type and body."""
        if path == "/health":
            health = self.server.status.health()
            return 200 if health["status"] == OK else 503, "application/json", json.dumps(health) + "\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE, self.server.status.metrics()
        raise _Refused(404)


def _path(head: bytes) -> str:
    """The path of a GET request, without its query."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refused(400)
    if words[0] != "GET":
        raise _Refused(405)
    return words[1].partition("?")[0]
