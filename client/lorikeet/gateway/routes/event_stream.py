"""Server-sent events: one JSON object each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

_KEEP_ALIVE = ": keep-alive\n\n"


class EventStream(StreamingResponse):
    """Sends each object of `events`; None becomes a comment."""

    def __init__(self, events: AsyncIterator[dict[str, Any] | None], headers: dict[str, str]) -> None:
        super().__init__(
            _encode(events), headers={"Cache-Control": "no-store", **headers}, media_type="text/event-stream"
        )


async def _encode(events: AsyncIterator[dict[str, Any] | None]) -> AsyncIterator[str]:
    async for event in events:
        yield _KEEP_ALIVE if event is None else f"data: {json.dumps(event)}\n\n"
