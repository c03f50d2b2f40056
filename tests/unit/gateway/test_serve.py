"""`lorikeet gateway` as its users start it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from deploy.local_gateway import LocalGateway


def test_an_answer_does_not_wait_for_acknowledgements(tmp_path: Path) -> None:
    """With Nagle's algorithm, the body of each answer comes 40 ms after its head. The fastest of many is compared, as
    other programs may slow down some."""
    with LocalGateway(tmp_path / "log", {"data": str(tmp_path / "data")}) as gateway, httpx.Client() as client:
        seconds = []
        for _ in range(20):
            begun = time.perf_counter()
            assert client.get(f"{gateway.url}/health/live").status_code == 200
            seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.02
