"""The Triton servers: which one takes a request, and how many each takes at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from lorikeet.client.aio import AsyncClient
from lorikeet.protocol.errors import LorikeetError

_REMEMBERED = 32  # names of weights that a server used last
_READY_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class TritonServer:
    """One server. `running`: requests of this gateway in it. `has_failed`: until it is ready again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = AsyncClient(url)
        self.running = 0
        self.has_failed = False
        self._weights: OrderedDict[str, None] = OrderedDict()

    def held(self, weights: Iterable[str]) -> int:
        """How many of the named weights it used lately."""
        return sum(name in self._weights for name in weights)

    def use(self, weights: Iterable[str]) -> None:
        """Remember that it has these weights now."""
        for name in weights:
            self._weights[name] = None
            self._weights.move_to_end(name)
        while len(self._weights) > _REMEMBERED:
            self._weights.popitem(last=False)

    def forget_weights(self) -> None:
        self._weights.clear()


class ServerPool:
    """All servers of the gateway, with at most `slots` requests in each."""

    def __init__(self, urls: Sequence[str], slots: int) -> None:
        self.servers = [TritonServer(url) for url in urls]
        self._slots = slots
        self._changed = asyncio.Condition()
        self._recoveries: set[asyncio.Task[None]] = set()

    @property
    def capacity(self) -> int:
        """Requests that run at a time, in all servers together."""
        return self._slots * len(self.servers)

    @asynccontextmanager
    async def slot(self, weights: Sequence[str]) -> AsyncIterator[TritonServer]:
        """A place on a server that works: on the one that holds the weights, else on the least loaded."""
        async with self._changed:
            await self._changed.wait_for(self._free)
            server = min(self._free(), key=lambda server: (-server.held(weights), server.running))
            server.running += 1
        server.use(weights)
        try:
            yield server
        finally:
            server.running -= 1
            await asyncio.shield(self._notify())

    def note_failure(self, server: TritonServer) -> None:
        """Send nothing to the server until it is ready. It may be ready at once: it was full, or restarts a stage."""
        if not server.has_failed:
            server.has_failed = True
            server.forget_weights()
            task = asyncio.create_task(self._recover(server))
            self._recoveries.add(task)
            task.add_done_callback(self._recoveries.discard)

    async def close(self) -> None:
        for task in self._recoveries:
            task.cancel()
        for server in self.servers:
            await server.client.close()

    def _free(self) -> list[TritonServer]:
        return [server for server in self.servers if not server.has_failed and server.running < self._slots]

    async def _recover(self, server: TritonServer) -> None:
        while server.has_failed:
            try:
                await server.client.wait_ready(_READY_SECONDS)
                server.has_failed = False
            except LorikeetError:
                continue
            except Exception:  # without this task, the server would get no request until the gateway restarts
                _log.exception("the server %s could not be asked whether it is ready", server.url)
                await asyncio.sleep(_PAUSE_SECONDS)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
