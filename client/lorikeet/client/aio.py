"""The asyncio client; `lorikeet.client.sync` runs this one in a thread."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal

from typing_extensions import Self

from lorikeet.client.job import AsyncJob
from lorikeet.client.pack import pack
from lorikeet.client.result import Result
from lorikeet.client.transport import Transport, connect
from lorikeet.protocol.errors import LorikeetError, make_error
from lorikeet.protocol.tensors import (
    IMAGE_MODEL,
    InferCall,
    JobParameters,
    image_call,
    job_call,
    read_result,
    read_status,
)
from lorikeet.schema import ImageToImageInput, JobRequest, JobStatus

JOBS_TIMEOUT = 5.0
READY_POLL_SECONDS = 0.25

Request = ImageToImageInput | Mapping[str, Any] | None


class AsyncClient:
    """A Lorikeet server, from one event loop.

    `url` is `grpc[s]://host:port`, `http[s]://host:port`, or `host:port` for gRPC; `headers` go with every
    call. Nothing is sent before the first call. All methods raise LorikeetError.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._connected: Transport | None = None

    async def image_to_image(
        self,
        request: Request = None,
        *,
        image: object = None,
        on_progress: Callable[[JobStatus], None] | None = None,
        request_id: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Result:
        """Generate, and wait for the images.

        `fields` are laid over `request`; `image` is short for image_url. Fields that take a URL also take a
        local path, bytes or a PIL image, which are sent along. `on_progress` is called in the event loop on
        each change of the status. When this is cancelled, runs out of `timeout` (seconds) or `on_progress`
        raises, the request is cancelled on the server; the server knows the `timeout` too. `priority`: as for
        `submit`.
        """
        job = await self.submit(
            request, image=image, request_id=request_id, priority=priority, deadline=timeout, **fields
        )
        try:
            return await job.result(timeout, on_progress)
        except BaseException:
            await asyncio.shield(job.abandon())
            raise

    async def submit(
        self,
        request: Request = None,
        *,
        image: object = None,
        request_id: str | None = None,
        priority: int | None = None,
        deadline: float | None = None,
        **fields: object,
    ) -> AsyncJob:
        """Send a request as `image_to_image` does and return at once, with the job in flight.

        Where requests wait, `priority` 1 goes before 2, which is normal, and 3 behind it. `deadline` seconds after
        its admission the server lets go of it, and its result is DeadlineExceeded.
        """
        if image is not None:
            fields["image_url"] = image
        valid, files = await asyncio.to_thread(pack, request, fields)
        request_id, job_token = request_id or uuid.uuid4().hex, secrets.token_hex(16)
        call = image_call(valid, files, JobParameters(request_id, job_token, priority, deadline))
        return AsyncJob(self, request_id, job_token, asyncio.create_task(self._generate(call)))

    async def status(self, request_id: str, job_token: str) -> JobStatus:
        """Where a request stands. Raises NotFound before it is admitted and when the token is not its own."""
        return await self._ask_jobs("progress", request_id, job_token)

    async def cancel(self, request_id: str, job_token: str) -> JobStatus:
        """End a request; its own call then raises Cancelled. Raises NotFound as `status` does."""
        return await self._ask_jobs("cancel", request_id, job_token)

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when the server is ready for requests; raise DeadlineExceeded after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        reason = "not ready"
        while (left := deadline - time.monotonic()) > 0:
            try:
                if await asyncio.wait_for(self._transport().ready(IMAGE_MODEL), left):
                    return
            except (LorikeetError, asyncio.TimeoutError) as error:
                reason = str(error) or reason
            await asyncio.sleep(min(READY_POLL_SECONDS, left))
        raise make_error(f"{self._url} was not ready after {timeout:g} s: {reason}", "DEADLINE_EXCEEDED")

    async def close(self) -> None:
        """Release the connection; the client can be used again and then reconnects."""
        if self._connected is not None:
            transport, self._connected = self._connected, None
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _transport(self) -> Transport:
        # Not in __init__: connections belong to the running event loop.
        if self._connected is None:
            self._connected = connect(self._url, self._headers)
        return self._connected

    async def _generate(self, call: InferCall) -> Result:
        return read_result(call.request_id, await self._transport().infer(call))

    async def _ask_jobs(self, action: Literal["progress", "cancel"], request_id: str, job_token: str) -> JobStatus:
        call = job_call(JobRequest(action=action, request_id=request_id, job_token=job_token))
        try:
            return read_status(await asyncio.wait_for(self._transport().infer(call), JOBS_TIMEOUT))
        except asyncio.TimeoutError as error:
            raise make_error(f"no answer about the job in {JOBS_TIMEOUT:g} s", "DEADLINE_EXCEEDED") from error
