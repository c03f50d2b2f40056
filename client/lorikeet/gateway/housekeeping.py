"""Removes what has outlived its time: files, ended requests, and those whose payloads must not be kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.queue.service import QueueService

_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Housekeeping:
    """Runs once a minute."""

    def __init__(self, store: FileStore, queue: QueueService) -> None:
        self._store, self._queue = store, queue
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # Each on its own: a folder that cannot be reached must not keep old requests, nor the database old files.
            await _remove("files", self._store.delete_expired())
            await _remove("requests", self._queue.remove_old(time.time()))
            await asyncio.sleep(_SECONDS)


async def _remove(what: str, removal: Awaitable[object]) -> None:
    try:
        await removal
    except Exception:
        _log.exception("old %s could not be removed; the next try is in %s s", what, _SECONDS)
