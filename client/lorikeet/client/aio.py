"""The asyncio client. `lorikeet.client.sync` runs it in a background thread."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import ValidationError
from typing_extensions import Self

from lorikeet.client.calls import InferCall, image_call, job_call, read_result, read_status
from lorikeet.client.job import AsyncJob
from lorikeet.client.lease import LEASE_SECONDS, LeaseKeeper
from lorikeet.client.pack import pack
from lorikeet.client.result import Result
from lorikeet.client.transport import Transport, connect
from lorikeet.protocol.errors import DEADLINE_EXCEEDED, INVALID_ARG, LorikeetError, make_error
from lorikeet.protocol.parameters import DEFAULT_PRIORITY, JobParameters, ParameterError, check_name
from lorikeet.protocol.tensors import IMAGE_MODEL
from lorikeet.schema import ImageToImageInput, JobRequest, JobStatus, describe_errors

JOBS_TIMEOUT = 5.0
READY_POLL_SECONDS = 0.25

Request = ImageToImageInput | Mapping[str, Any] | None


class AsyncClient:
    """A client of one Lorikeet server, used from one event loop.

    `url` is `grpc[s]://host:port`, `http[s]://host:port`, or `host:port` for gRPC. Every call sends `headers`. The
    first call connects. All methods raise LorikeetError.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        # gRPC takes names in lower case only; those of HTTP have no case.
        self._headers = {name.lower(): value for name, value in (headers or {}).items()}
        self._connected: Transport | None = None
        self._leases = LeaseKeeper(url, self._headers)

    async def image_to_image(
        self,
        request: Request = None,
        *,
        image: object = None,
        on_progress: Callable[[JobStatus], object] | None = None,
        request_id: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        **fields: object,
    ) -> Result:
        """Generate images and wait for them.

        `fields` override those of `request`; `image` sets image_url. A field that takes a URL also takes a local path,
        bytes or a PIL image, which the request carries. The event loop calls `on_progress` on each change of the
        status. The server cancels the request when this coroutine is cancelled, `timeout` (seconds) passes or
        `on_progress` raises. `priority`: as in `submit`.
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
        """Send a request as `image_to_image` does, and return its job at once.

        Queued jobs of `priority` 1 start before those of 2 (the default), and those of 2 before those of 3. The server
        ends the job `deadline` seconds after its admission; `result` then raises DeadlineExceeded.
        """
        if image is not None:
            fields["image_url"] = image
        valid, files = await asyncio.to_thread(pack, request, fields)
        return self.send(valid, files, request_id=request_id, priority=priority, deadline=deadline)

    def send(
        self,
        valid: ImageToImageInput,
        files: list[bytes],
        *,
        request_id: str | None = None,
        priority: int | None = None,
        deadline: float | None = None,
    ) -> AsyncJob:
        """`submit` for a request whose files are `tensor:<i>` already; it reads no file of this machine."""
        request_id, job_token = request_id or uuid.uuid4().hex, secrets.token_hex(16)
        priority = DEFAULT_PRIORITY if priority is None else priority
        parameters = JobParameters(job_token, priority, deadline, lease=LEASE_SECONDS)
        try:
            check_name("request_id", request_id)
            call = image_call(valid, files, request_id, parameters)
        except ParameterError as error:
            raise make_error(str(error), INVALID_ARG) from error
        reply = asyncio.create_task(self._generate(call))
        self._leases.add((request_id, job_token))
        reply.add_done_callback(lambda _: self._leases.remove((request_id, job_token)))
        return AsyncJob(self, request_id, job_token, reply)

    async def status(self, request_id: str, job_token: str) -> JobStatus:
        """The status of a request. Raises NotFound before its admission, and for another request's token."""
        return await self._ask_jobs("progress", request_id, job_token)

    async def cancel(self, request_id: str, job_token: str) -> JobStatus:
        """Cancel a request: its own call then raises Cancelled. The status of one that has ended does not change.

        Raises NotFound as `status` does.
        """
        return await self._ask_jobs("cancel", request_id, job_token)

    async def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server is ready for requests. Raises DeadlineExceeded after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        reason = "not ready"
        while (left := deadline - time.monotonic()) > 0:
            try:
                if await asyncio.wait_for(self._transport().ready(IMAGE_MODEL), left):
                    return
            except (LorikeetError, asyncio.TimeoutError) as error:
                reason = str(error) or reason
            await asyncio.sleep(min(READY_POLL_SECONDS, left))
        raise make_error(f"{self._url} was not ready after {timeout:g} s: {reason}", DEADLINE_EXCEEDED)

    async def close(self) -> None:
        """Close the connection. A later call connects again."""
        if self._connected is not None:
            transport, self._connected = self._connected, None
            await transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _transport(self) -> Transport:
        # Not in __init__: a connection belongs to the event loop that runs when it is made.
        if self._connected is None:
            self._connected = connect(self._url, self._headers)
        return self._connected

    async def _generate(self, call: InferCall) -> Result:
        return read_result(call.request_id, await self._transport().infer(call))

    async def _ask_jobs(self, action: Literal["progress", "cancel"], request_id: str, job_token: str) -> JobStatus:
        try:
            call = job_call(JobRequest(action=action, request_id=request_id, job_token=job_token))
        except ValidationError as error:
            raise make_error(describe_errors(error), INVALID_ARG) from error
        try:
            return read_status(await asyncio.wait_for(self._transport().infer(call), JOBS_TIMEOUT))
        except asyncio.TimeoutError as error:
            raise make_error(f"the model jobs did not answer within {JOBS_TIMEOUT:g} s", DEADLINE_EXCEEDED) from error
