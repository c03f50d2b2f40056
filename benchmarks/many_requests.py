"""Several requests to a server, at once or one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from benchmarks.running_server import RunningServer


def at_once(server: RunningServer, requests: Sequence[dict[str, Any]]) -> list[float]:
    """Send all requests together; seconds from the first send to the end of each."""
    begun = perf_counter()
    jobs = [server.client.submit(request) for request in requests]

    def ended(number: int) -> float:
        jobs[number].result()
        return perf_counter() - begun

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(ended, range(len(jobs))))


def one_at_a_time(server: RunningServer, requests: Sequence[dict[str, Any]]) -> list[float]:
    """Send each request after the end of the previous one; seconds from the first send to the end of each."""
    begun = perf_counter()
    ends = []
    for request in requests:
        server.client.image_to_image(request)
        ends.append(perf_counter() - begun)
    return ends
