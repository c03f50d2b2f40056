"""Counts and times every HTTP request of the gateway."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorikeet.gateway.metrics import GatewayMetrics

_UNMATCHED = "unmatched"  # a path that no route has
_CLIENT_GONE, _FAILED = 499, 500


class HttpMetrics:
    """ASGI middleware. It passes messages on as they are, so that streams stay streams."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code, begun = _CLIENT_GONE, time.monotonic()

        async def note_code(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_code)
        except Exception:
            code = _FAILED
            raise
        finally:
            # Routing leaves the route in the scope; its template bounds the number of series.
            route = getattr(scope.get("route"), "path", _UNMATCHED)
            self._metrics.http(route, scope["method"], code, time.monotonic() - begun)
