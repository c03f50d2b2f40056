"""The calls of fal's Python client, as coroutines. Each returns what a user would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fal_client

from tests.gateway.clients.python.calls import ENDPOINT, POLL_SECONDS, seen


async def run(input: dict[str, Any], **options: Any) -> Any:
    return {"output": await fal_client.run_async(ENDPOINT, input, **options)}


async def subscribe(input: dict[str, Any], **options: Any) -> Any:
    updates: list[Any] = []
    ids: list[str] = []
    output = await fal_client.subscribe_async(
        ENDPOINT,
        input,
        with_logs=True,
        on_enqueue=ids.append,
        on_queue_update=lambda status: updates.append(seen(status)),
        **options,
    )
    return {"output": output, "request_id": ids[0], "updates": updates}


async def stream(input: dict[str, Any]) -> Any:
    events = [event async for event in fal_client.stream_async(ENDPOINT, input)]
    return {"events": events, "last": events[-1]}


async def submit(input: dict[str, Any], **options: Any) -> Any:
    return {"request_id": (await fal_client.submit_async(ENDPOINT, input, **options)).request_id}


async def status(request_id: str) -> Any:
    return seen(await fal_client.status_async(ENDPOINT, request_id, with_logs=True))


async def result(request_id: str) -> Any:
    return {"output": await fal_client.result_async(ENDPOINT, request_id)}


async def queue(input: dict[str, Any], **options: Any) -> Any:
    """Submit, ask for the status until the request has ended, fetch the result: all by the handle's URLs."""
    handle = await fal_client.submit_async(ENDPOINT, input, **options)
    return {
        "submitted": {"request_id": handle.request_id},
        "last": await _last(handle),
        "output": await handle.get(),
    }


async def cancel(input: dict[str, Any], when: str) -> Any:
    """Cancel a request as soon as it has the status `when`."""
    handle = await fal_client.submit_async(ENDPOINT, input)
    async for status in handle.iter_events(interval=POLL_SECONDS):
        if seen(status)["status"] == when:
            break
    await handle.cancel()
    return {"request_id": handle.request_id, "last": await _last(handle)}


async def upload(content: bytes, type: str, name: str) -> Any:
    return {"url": await fal_client.upload_async(content, type, name)}


async def upload_file(path: str) -> Any:
    return {"url": await fal_client.upload_file_async(Path(path))}


async def _last(handle: Any) -> Any:
    return [seen(status) async for status in handle.iter_events(with_logs=True, interval=POLL_SECONDS)][-1]
