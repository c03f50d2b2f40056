"""Gateways that share a database: each shows that it lives, and takes over the requests of one that does not."""

from __future__ import annotations

import asyncio
import logging
import time

import sqlalchemy as sa

from lorikeet.gateway.database import gateways
from lorikeet.gateway.queue.workflows import Workflows

_BEAT_SECONDS = 2.0
_DEAD_SECONDS = 15.0
_log = logging.getLogger(__name__)


class Peers:
    """The gateways of one database. A gateway that only paused runs its requests twice; the first outcome stands."""

    def __init__(self, engine: sa.Engine, gateway_id: str, workflows: Workflows) -> None:
        self._engine, self._id, self._workflows = engine, gateway_id, workflows
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let the others take over at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.to_thread(self._write, 0.0)

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._write, time.time())
                for gateway_id in await asyncio.to_thread(self._dead):
                    _log.warning("gateway %s is gone: its requests run here or in another gateway", gateway_id)
                    await self._workflows.take_over(gateway_id)
                    await asyncio.to_thread(self._remove, gateway_id)
            except Exception:
                _log.exception("the gateways of the database could not be read")
            await asyncio.sleep(_BEAT_SECONDS)

    def _write(self, seen_at: float) -> None:
        with self._engine.begin() as connection:
            mine = gateways.c.id == self._id
            if not connection.execute(sa.update(gateways).where(mine).values(seen_at=seen_at)).rowcount:
                connection.execute(sa.insert(gateways).values(id=self._id, seen_at=seen_at))

    def _dead(self) -> list[str]:
        is_dead = (gateways.c.seen_at < time.time() - _DEAD_SECONDS) & (gateways.c.id != self._id)
        with self._engine.connect() as connection:
            return list(connection.scalars(sa.select(gateways.c.id).where(is_dead)))

    def _remove(self, gateway_id: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(gateways).where(gateways.c.id == gateway_id))
