"""`/api/fal/proxy`: fal's proxy protocol. The target's host selects a part of this gateway; nothing is fetched."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PROXY_PATH = "/api/fal/proxy"
TARGET = "x-fal-target-url"

_PARTS = {
    "fal.run": "/run",
    "queue.fal.run": "/queue",
    "rest.fal.ai": "/rest",
    "rest.alpha.fal.ai": "/rest",
}


class FalProxy:
    """ASGI middleware: a request of the proxy's path continues as one of the path that its target means."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != PROXY_PATH:
            await self._app(scope, receive, send)
            return
        target = _target(Headers(scope=scope).get(TARGET, ""))
        if target is None:
            await PlainTextResponse("Invalid request", 400)(scope, receive, send)
            return
        path, query = target
        await self._app(
            {**scope, "path": path, "raw_path": path.encode(), "query_string": query.encode()}, receive, send
        )


def _target(url: str) -> tuple[str, str] | None:
    """Path and query within this gateway; None for targets that are not fal's."""
    try:
        parts = urlsplit(url)
        part = _PARTS.get(parts.netloc.lower())
    except ValueError:
        return None
    if parts.scheme != "https" or part is None or not url.isascii():
        return None
    return part + parts.path, parts.query
