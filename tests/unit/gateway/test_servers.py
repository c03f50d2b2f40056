"""Which Triton server takes a request."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from lorikeet.gateway.execution import servers
from lorikeet.gateway.execution.servers import ServerPool

URLS = ("grpc://a:1", "grpc://b:1")


@pytest.mark.asyncio
async def test_requests_go_to_the_least_loaded_server() -> None:
    pool = ServerPool(URLS, slots=2)
    async with AsyncExitStack() as stack:
        used = [(await stack.enter_async_context(pool.slot([f"m{i}"]))).url for i in range(4)]
    assert sorted(used) == [*(URLS[:1] * 2), *(URLS[1:] * 2)] and used[0] != used[1]


@pytest.mark.asyncio
async def test_a_request_goes_to_the_server_that_holds_its_weights() -> None:
    pool = ServerPool(URLS, slots=2)
    async with pool.slot(["m", "lora"]) as first, pool.slot(["m", "lora"]) as second:
        assert first is second
        async with pool.slot(["m", "lora"]) as third:  # the first one is full
            assert third is not first


@pytest.mark.asyncio
async def test_a_request_waits_for_a_slot() -> None:
    pool = ServerPool(URLS[:1], slots=1)
    order = []

    async def use(name: str) -> None:
        async with pool.slot([]):
            order.append(name)
            await asyncio.sleep(0.01)

    await asyncio.wait_for(asyncio.gather(use("a"), use("b"), use("c")), 5)
    assert order == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_a_failed_server_gets_nothing_until_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ServerPool(URLS, slots=2)
    broken = pool.servers[0]
    ready = asyncio.Event()

    async def wait_ready(_: float) -> None:
        await ready.wait()

    monkeypatch.setattr(broken.client, "wait_ready", wait_ready)
    pool.note_failure(broken)
    async with pool.slot([]) as first, pool.slot([]) as second:
        assert broken not in (first, second)
        third = asyncio.create_task(pool.slot([]).__aenter__())
        await asyncio.sleep(0.05)
        assert not third.done()
        ready.set()
        assert await asyncio.wait_for(third, 5) is broken


@pytest.mark.asyncio
async def test_a_failed_server_is_asked_again_after_any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ServerPool(URLS[:1], slots=1)
    errors = iter([RuntimeError("event loop is closed")])

    async def wait_ready(_: float) -> None:
        for error in errors:
            raise error

    monkeypatch.setattr(servers, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(pool.servers[0].client, "wait_ready", wait_ready)
    pool.note_failure(pool.servers[0])
    async with asyncio.timeout(5) if hasattr(asyncio, "timeout") else AsyncExitStack(), pool.slot([]) as server:
        assert not server.has_failed


@pytest.mark.asyncio
async def test_a_cancelled_waiter_takes_no_slot() -> None:
    pool = ServerPool(URLS[:1], slots=1)
    async with pool.slot([]):
        waiter = asyncio.create_task(pool.slot([]).__aenter__())
        await asyncio.sleep(0.01)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    async with asyncio.timeout(1) if hasattr(asyncio, "timeout") else AsyncExitStack(), pool.slot([]) as server:
        assert server.running == 1
