"""A request in flight."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, Protocol

from lorikeet.client.result import Result
from lorikeet.protocol.errors import DEADLINE_EXCEEDED, LorikeetError, NotFound, make_error
from lorikeet.schema import JobStatus

POLL_SECONDS = 0.25
ADMISSION_POLLS = 4
ABANDON_TIMEOUT = 5.0
# Triton before 2.57 can crash when a gRPC call is closed at the moment of its answer (server#8034). A cancelled request
# is answered after the running network call, in most cases sooner than this.
ANSWER_TIMEOUT = 1.0


class JobsApi(Protocol):
    """The methods of the client that a job calls."""

    async def status(self, request_id: str, job_token: str) -> JobStatus:
        """The status of the request."""

    async def cancel(self, request_id: str, job_token: str) -> JobStatus:
        """Cancel the request."""


class AsyncJob:
    """One submitted request. `reply` is its inference call; the request id and the token address it."""

    def __init__(self, client: JobsApi, request_id: str, job_token: str, reply: "asyncio.Task[Result]") -> None:
        self.request_id = request_id
        self.job_token = job_token
        self._client = client
        self._reply = reply
        self._poll: asyncio.Task[JobStatus] | None = None

    async def result(
        self, timeout: float | None = None, on_progress: Callable[[JobStatus], object] | None = None
    ) -> Result:
        """Wait for the result, calling `on_progress` on each change of the status.

        Raises the request's LorikeetError, DeadlineExceeded after `timeout` seconds, or what `on_progress` raises. In
        the last two cases, and when this coroutine is cancelled, the request continues: call `result` again.
        """
        tasks: set[asyncio.Task[Any]] = {self._reply}
        watcher = asyncio.create_task(self._watch(on_progress)) if on_progress else None
        if watcher is not None:
            tasks.add(watcher)
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if watcher is not None:
                watcher.cancel()
        if watcher in done:
            watcher.result()
        if self._reply in done:
            return self._reply.result()
        raise make_error(f"request {self.request_id} took longer than {timeout:g} s", DEADLINE_EXCEEDED)

    async def status(self) -> JobStatus:
        """The status of the request. Raises NotFound until the server has admitted it."""
        return await self._client.status(self.request_id, self.job_token)

    async def cancel(self) -> JobStatus:
        """Cancel the request: `result` then raises Cancelled. The status of one that has ended does not change.

        Raises NotFound when the server does not know the request, or not any more.
        """
        for _ in range(ADMISSION_POLLS):
            with suppress(NotFound):
                return await self._client.cancel(self.request_id, self.job_token)
            # The server has most likely not admitted the request yet, so the cancel had no effect.
            await asyncio.wait({self._reply}, timeout=POLL_SECONDS)
            if self._reply.done():
                break
        return await self._client.cancel(self.request_id, self.job_token)

    async def abandon(self) -> None:
        """Cancel the request if it is in flight, wait a moment for its answer, and close its call. Raises nothing."""
        try:
            if not self._reply.done():
                with suppress(LorikeetError, asyncio.TimeoutError):
                    await asyncio.wait_for(self.cancel(), ABANDON_TIMEOUT)
                    await asyncio.wait({self._reply}, timeout=ANSWER_TIMEOUT)
        finally:
            self._reply.cancel()
            await asyncio.gather(self._reply, return_exceptions=True)

    async def _watch(self, on_progress: Callable[[JobStatus], object]) -> NoReturn:
        last = None
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._poll = asyncio.create_task(self.status())
            self._poll.add_done_callback(lambda poll: poll.cancelled() or poll.exception())
            try:
                # Shielded: the end of the result would close the call, which may be at the moment of its answer.
                status = await asyncio.shield(self._poll)
            except LorikeetError:  # not admitted yet, or a failed poll: neither affects the result
                continue
            if status != last:
                on_progress(status)
                last = status
