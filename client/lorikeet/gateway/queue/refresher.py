"""Keeps memory equal to the database: what an earlier process and other gateways accepted, run and ended."""

from __future__ import annotations

import asyncio
import logging
import time

from lorikeet.gateway.queue.recorded import PENDING
from lorikeet.gateway.queue.service import QueueService

_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Refresher:
    """Reads the live requests: once, and every quarter of a second when other gateways use the database too."""

    def __init__(self, queue: QueueService, is_shared: bool) -> None:
        self._queue, self._is_shared = queue, is_shared
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._refresh()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            try:
                if self._is_shared:
                    await self._refresh()
                await self._queue.expire(time.time())
            except Exception:
                _log.exception("the queue could not be read; the next try is in %s s", _SECONDS)

    async def _refresh(self) -> None:
        live = {status.workflow_id: status for status in await self._queue.workflows.live()}
        await self._queue.adopt([request_id for request_id in live if self._queue.board.get(request_id) is None])
        for status in live.values():
            if status.status == PENDING:
                await self._queue.follow(status)
        await self._queue.settle([record for record in self._queue.board.live() if record.request_id not in live])
