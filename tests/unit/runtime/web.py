"""A web server on the loopback address with scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """`answers`: path -> answer. `seen`: (path, headers) of each request received."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, Mapping[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                web.seen.append((path, dict(self.headers)))
                try:
                    web.answers.get(path, reply(status=404))(self)
                except OSError:
                    self.close_connection = True

            do_HEAD = do_GET  # noqa: N815 (the library's name)

            def log_message(self, *_: object) -> None:
                """Write no log."""

        return Handler


def reply(body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A complete answer. `headers` may override its Content-Length."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        handler.close_connection = handler.close_connection or "Content-Length" in (headers or {})

    return answer


def redirect(location: str) -> Answer:
    return reply(status=302, headers={"Location": location})


def endless(piece: bytes, seconds: float = 0.0) -> Answer:
    """An endless body of unknown length: `piece` every `seconds`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        _repeat(handler, piece, seconds)

    return answer


def endless_headers(seconds: float) -> Answer:
    """Headers that never end."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        _repeat(handler, b"X: y\r\n", seconds)

    return answer


def silent(released: threading.Event) -> Answer:
    """No answer until `released` is set, at most 20 s."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        released.wait(20)
        handler.close_connection = True

    return answer


def _repeat(handler: BaseHTTPRequestHandler, piece: bytes, seconds: float) -> None:
    pause = threading.Event()
    while True:  # until the client hangs up
        handler.wfile.write(piece)
        pause.wait(seconds)
