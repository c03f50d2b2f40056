"""What the gateway can ask of each Triton server besides requests: its supervisor, and Triton's own metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpcore

_SECONDS = 2.0  # for one answer, from the connection to its last byte


class NoAnswer(Exception):
    """A server did not answer in time, or answered what cannot be its answer."""


@dataclass(frozen=True)
class WatchedServer:
    """A Triton server. `name`: host and port of its gRPC or HTTP URL. The URLs have no path; None: not configured."""

    name: str
    status_url: str | None
    metrics_url: str | None


def watched_servers(
    servers: Sequence[str], status_urls: Sequence[str], metrics_urls: Sequence[str]
) -> list[WatchedServer]:
    """The servers with their URLs, which are lists in the order of `servers`, or empty.

    Raises ValueError for lists of other lengths: nobody could tell which URL belongs to which server.
    """
    for variable, urls in (("STATUS_URLS", status_urls), ("METRICS_URLS", metrics_urls)):
        if urls and len(urls) != len(servers):
            raise ValueError(
                f"LORIKEET_GATEWAY_{variable} names {len(urls)} URLs and LORIKEET_GATEWAY_SERVERS {len(servers)}: "
                "name one URL for each server, in the same order, or set it to an empty text"
            )
    nothing = [None] * len(servers)
    return [
        WatchedServer(urlsplit(server).netloc or server, status, metrics)
        for server, status, metrics in zip(servers, status_urls or nothing, metrics_urls or nothing, strict=True)
    ]


async def get(base: str, path: str, max_bytes: int) -> tuple[int, bytes]:
    """The status code and the body of an answer. Raises NoAnswer, after 2 s at the latest."""
    body = b""
    try:
        with anyio.fail_after(_SECONDS):
            async with (
                httpcore.AsyncConnectionPool() as pool,
                pool.stream("GET", base.rstrip("/") + path) as response,
            ):
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > max_bytes:
                        raise NoAnswer(f"its answer is larger than {max_bytes} bytes")
    except TimeoutError as error:
        raise NoAnswer(f"no answer in {_SECONDS:g} s") from error
    except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
    return response.status, body
