"""What the gateway can ask of each Triton server besides requests: its supervisor, and Triton's own metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpcore

_STATUS_PORT, _METRICS_PORT = 8003, 8002  # the defaults of LORIKEET_STATUS_PORT and LORIKEET_METRICS_PORT
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
    servers: Sequence[str], status_urls: Sequence[str] | None, metrics_urls: Sequence[str] | None
) -> list[WatchedServer]:
    """The servers with their URLs, which are in the order of `servers`.

    None: the default ports on each server's host. An empty list: there are none.
    """
    if status_urls is None:
        status_urls = [_on_host_of(server, _STATUS_PORT) for server in servers]
    if metrics_urls is None:
        metrics_urls = [_on_host_of(server, _METRICS_PORT) for server in servers]
    nothing = [None] * len(servers)
    return [
        WatchedServer(urlsplit(server).netloc or server, status, metrics)
        for server, status, metrics in zip(servers, status_urls or nothing, metrics_urls or nothing, strict=True)
    ]


def _on_host_of(server: str, port: int) -> str:
    host = urlsplit(server).hostname or ""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


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
