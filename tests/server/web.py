"""A web server of files and scripted answers, that counts who asked for what; one name of it never ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from typing_extensions import Self

ENDLESS = "endless.png"  # a byte a second


class Web:
    """Serves a folder, `pictures` by name, and `answers` by path, on a free port of 127.0.0.1.

    The names are percent-encoded, without a query. An answer is a status, a header with its value (or b""), and a body.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: Counter[str] = Counter()
        self.pictures: dict[str, bytes] = {}
        self.answers: dict[str, tuple[int, bytes, bytes]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self, directory=str(folder)))
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def url(self, name: str) -> str:
        return f"http://{self.host}/{name}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, web: Web, *arguments: object, directory: str) -> None:
        self._web = web
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self._web.requests[name] += 1
        if (plain := name.partition("?")[0]) in self._web.answers:
            status, header, body = self._web.answers[plain]
            head = f"HTTP/1.0 {status} Answer\r\nContent-Length: {len(body)}\r\n".encode()
            self.wfile.write(head + (header + b"\r\n" if header else b"") + b"\r\n" + body)
            return
        if name == ENDLESS:
            self._trickle()
            return
        if name not in self._web.pictures:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self._web.pictures[name])))
        self.end_headers()
        self.wfile.write(self._web.pictures[name])

    def _trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(1)

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""
