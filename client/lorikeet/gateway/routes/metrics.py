"""`GET /metrics`: the gateway's metrics, those of the supervisors, and Triton's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter
from starlette.responses import Response

from lorikeet.gateway.merge_metrics import merge_metrics
from lorikeet.gateway.metrics import GatewayMetrics, ServerPart
from lorikeet.gateway.shared_call import SharedCall
from lorikeet.gateway.watched_servers import NoAnswer, WatchedServer, get

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MAX_BYTES = 4 << 20  # of one server's answer
_SHARED_SECONDS = 1.0


def metrics_router(
    metrics: GatewayMetrics, servers: Sequence[WatchedServer], note_levels: Callable[[], Awaitable[None]]
) -> APIRouter:
    """The route. `note_levels`: sets the metrics that are read at this time only, such as the queue's.

    With several servers, the samples of each have its name in the label `server`.
    """
    router = APIRouter(include_in_schema=False)

    async def scrape() -> str:
        _, of_servers = await asyncio.gather(note_levels(), _scrape(metrics, servers))
        return of_servers

    scraped = SharedCall(scrape, _SHARED_SECONDS)

    @router.get("/metrics")
    async def metrics_text() -> Response:
        of_servers = await scraped()
        return Response(metrics.text() + of_servers, media_type=CONTENT_TYPE)

    return router


async def _scrape(metrics: GatewayMetrics, servers: Sequence[WatchedServer]) -> str:
    """The metrics of all servers that answer; notes those that do not."""
    sources: list[tuple[str, ServerPart, str]] = []
    for server in servers:
        sources += [(server.name, "status", server.status_url)] if server.status_url else []
        sources += [(server.name, "triton", server.metrics_url)] if server.metrics_url else []
    texts = await asyncio.gather(*(_text(url) for _, _, url in sources))
    found: list[tuple[str | None, str]] = []
    for (name, part, _), text in zip(sources, texts, strict=True):
        metrics.set_server(name, part, text is not None)
        if text is not None:
            found.append((name if len(servers) > 1 else None, text))
    return await asyncio.to_thread(merge_metrics, found)


async def _text(url: str) -> str | None:
    """The metrics at a URL, None without an answer."""
    try:
        code, body = await get(url, "/metrics", _MAX_BYTES)
    except NoAnswer:
        return None
    return body.decode(errors="replace") if code == 200 else None
