"""The calls of fal's Python client, as blocking functions. Each returns what a user would see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fal_client

ENDPOINT = "fal-ai/lora/image-to-image"
POLL_SECONDS = 0.05


def run(input: dict[str, Any], **options: Any) -> Any:
    return {"output": fal_client.run(ENDPOINT, input, **options)}


def subscribe(input: dict[str, Any], **options: Any) -> Any:
    updates: list[Any] = []
    ids: list[str] = []
    output = fal_client.subscribe(
        ENDPOINT,
        input,
        with_logs=True,
        on_enqueue=ids.append,
        on_queue_update=lambda status: updates.append(seen(status)),
        **options,
    )
    return {"output": output, "request_id": ids[0], "updates": updates}


def stream(input: dict[str, Any]) -> Any:
    events = list(fal_client.stream(ENDPOINT, input))
    return {"events": events, "last": events[-1]}


def submit(input: dict[str, Any], **options: Any) -> Any:
    return {"request_id": fal_client.submit(ENDPOINT, input, **options).request_id}


def status(request_id: str) -> Any:
    return seen(fal_client.status(ENDPOINT, request_id, with_logs=True))


def result(request_id: str) -> Any:
    return {"output": fal_client.result(ENDPOINT, request_id)}


def queue(input: dict[str, Any], **options: Any) -> Any:
    """Submit, ask for the status until the request has ended, fetch the result: all by the handle's URLs."""
    handle = fal_client.submit(ENDPOINT, input, **options)
    last = [seen(status) for status in handle.iter_events(with_logs=True, interval=POLL_SECONDS)][-1]
    return {"submitted": {"request_id": handle.request_id}, "last": last, "output": handle.get()}


def cancel(input: dict[str, Any], when: str) -> Any:
    """Cancel a request as soon as it has the status `when`."""
    handle = fal_client.submit(ENDPOINT, input)
    for status in handle.iter_events(interval=POLL_SECONDS):
        if seen(status)["status"] == when:
            break
    handle.cancel()
    last = [seen(status) for status in handle.iter_events(with_logs=True, interval=POLL_SECONDS)][-1]
    return {"request_id": handle.request_id, "last": last}


def upload(content: bytes, type: str, name: str) -> Any:
    return {"url": fal_client.upload(content, type, name)}


def upload_file(path: str) -> Any:
    return {"url": fal_client.upload_file(Path(path))}


NAMES = {"Queued": "IN_QUEUE", "InProgress": "IN_PROGRESS", "Completed": "COMPLETED"}


def seen(status: Any) -> dict[str, Any]:
    """A status of the client, as the tests compare it."""
    logs = getattr(status, "logs", None) or ()
    return {
        "status": NAMES[type(status).__name__],
        "position": getattr(status, "position", None),
        "messages": [line["message"] for line in logs],
        "error": getattr(status, "error", None),
        "error_type": getattr(status, "error_type", None),
        "metrics": getattr(status, "metrics", None),
    }
