"""Everything that the routes use, made once for a gateway."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from starlette.requests import Request

from lorikeet.gateway.database import instance_secret, open_database
from lorikeet.gateway.execution.run import Runner
from lorikeet.gateway.execution.servers import ServerPool
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.housekeeping import Housekeeping
from lorikeet.gateway.keys import KeyStore
from lorikeet.gateway.metrics import GatewayMetrics
from lorikeet.gateway.queue.peers import Peers
from lorikeet.gateway.queue.refresher import Refresher
from lorikeet.gateway.queue.service import QueueService
from lorikeet.gateway.queue.submission import RequestIds
from lorikeet.gateway.settings import GatewaySettings
from lorikeet.gateway.signed_tokens import TokenSigner
from lorikeet.gateway.webhooks.deliver import WebhookSender
from lorikeet.gateway.webhooks.signing import WebhookSigner


class Services:
    """The parts of a running gateway. Construct it in the event loop that it serves."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.engine = open_database(settings.database_url)
        self.keys = KeyStore(self.engine)
        self.tokens = TokenSigner(instance_secret(self.engine, "tokens"))
        self.signer = WebhookSigner(instance_secret(self.engine, "webhooks"))
        self.webhooks = WebhookSender(self.signer, settings.webhook_allow)
        self.files = FileStore(self.engine, settings.files_url, settings.base_url)
        self.servers = ServerPool(settings.servers, settings.slots)
        self.runner = Runner(self.servers, self.files)
        ids = RequestIds(instance_secret(self.engine, "request ids"))
        self.queue = QueueService(settings, self.runner, ids, self.webhooks, metrics)
        self._refresher = Refresher(self.queue, settings.is_shared)
        self._peers = Peers(self.engine, settings.gateway_id, self.queue.workflows)
        self._housekeeping = Housekeeping(self.files, self.queue)

    async def start(self) -> None:
        """Start the queue; it continues the requests of an earlier process."""
        await self.queue.workflows.launch(self.servers.capacity)
        await self._refresher.start()
        if self.settings.is_shared:
            await self._peers.start()
        self._housekeeping.start()

    async def check_queue(self) -> None:
        """Raises an error of the database when it does not answer."""
        await asyncio.to_thread(self._ping)

    async def check_files(self) -> None:
        """Raises OSError when the folder of files cannot be read."""
        await asyncio.to_thread(self.files.check)

    async def note_levels(self) -> None:
        """Set the metrics that are levels and no counts: the queue and the stored files."""
        waiting = self.queue.board.waiting()
        self.metrics.set_queue(waiting, len(self.queue.board.live()) - waiting)
        self.metrics.set_stored(*await self.files.totals())

    async def stop(self) -> None:
        """Stop everything. Requests of the queue continue at the next start."""
        await self._housekeeping.stop()
        await self._refresher.stop()
        await self.queue.stop_running()
        self.queue.workflows.destroy()
        await self._peers.stop()
        await self.servers.close()
        self.engine.dispose()

    def _ping(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(sa.select(1))


def services_of(request: Request) -> Services:
    """The services of the gateway that a request reached."""
    found: Services = request.app.state.services
    return found
