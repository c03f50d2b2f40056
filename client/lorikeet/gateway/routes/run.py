"""`/run`: a request that runs at once, and whose answer is its output. It is cancelled when its client goes away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorikeet.gateway.api_error import CLIENT_CANCELLED, ApiError, start_timeout
from lorikeet.gateway.auth import KeyId
from lorikeet.gateway.endpoints import ENDPOINTS, Endpoint
from lorikeet.gateway.execution.log_lines import LogLine
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.execution.run import Run
from lorikeet.gateway.queue.submission import seeded
from lorikeet.gateway.routes.event_stream import EventStream
from lorikeet.gateway.routes.openapi import input_body
from lorikeet.gateway.routes.read_json import read_json_object
from lorikeet.gateway.routes.submit_options import read_options
from lorikeet.gateway.services import services_of
from lorikeet.schema import ImageToImageInput

router = APIRouter(prefix="/run", tags=["run"])

_DISCONNECT_POLL_SECONDS = 0.25
_KEEP_ALIVE_SECONDS = 15.0
_TRITON_PRIORITY = 2


class RunningRequest:
    """One run: its task, its log, and whether it has started. `lines`: of the log; None is the end of them."""

    def __init__(self, request: Request, endpoint: Endpoint, body: dict[str, Any], key_id: str) -> None:
        services, options = services_of(request), read_options(request)
        self.id = str(uuid.uuid4())
        self._endpoint, self._metrics = endpoint, services.metrics
        self._submitted_at = time.monotonic()
        self._started_at: float | None = None
        self.lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
        self._started = asyncio.Event()
        self._start_timeout = options.start_timeout
        run = Run(
            request=self._read(body),
            key_id=key_id,
            lifecycle=options.lifecycle,
            attempts=services.settings.max_attempts if options.may_retry else 1,
            triton_priority=_TRITON_PRIORITY,
            on_log=self.lines.put_nowait,
            on_start=self._start,
            on_rate=self._metrics.step,
            attempt_id=self.id,
        )
        self._metrics.submitted(endpoint.id)
        self.task = asyncio.create_task(services.runner.run(run))
        self._watch = asyncio.create_task(self._cancel_when_gone(request))

    @property
    def headers(self) -> dict[str, str]:
        return {"x-fal-request-id": self.id}

    def _read(self, body: dict[str, Any]) -> ImageToImageInput:
        """The input. Raises FieldErrors with the id of the request."""
        try:
            return self._endpoint.read(seeded(body))
        except ApiError as error:
            error.headers |= self.headers
            raise

    async def outcome(self) -> Outcome:
        """Wait for the end. Raises ApiError (504) when it did not start in the time that its client gave."""
        error_type: str | None = CLIENT_CANCELLED
        try:
            if self._start_timeout is not None:
                await self._wait_for_start(self._start_timeout)
            outcome = await self.task
            error_type = outcome.error_type
            return outcome
        except ApiError as error:
            error_type = error.error_type
            raise
        finally:
            run_seconds = None if self._started_at is None else time.monotonic() - self._started_at
            self._metrics.ended(self._endpoint.id, error_type, run_seconds)
            await self.close()

    async def close(self) -> None:
        """End the run if it has not ended."""
        self._watch.cancel()
        self.task.cancel()
        await asyncio.gather(self.task, self._watch, return_exceptions=True)

    def _start(self) -> None:
        """The request got a slot; again, when the server failed before."""
        if self._started_at is None:
            self._started_at = time.monotonic()
            self._metrics.started(self._started_at - self._submitted_at)
        self._started.set()

    async def _wait_for_start(self, seconds: float) -> None:
        started = asyncio.create_task(self._started.wait())
        try:
            done, _ = await asyncio.wait((started, self.task), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if not done:
            raise start_timeout()

    async def _cancel_when_gone(self, request: Request) -> None:
        while not self.task.done():
            if await request.is_disconnected():
                self.task.cancel()
            await asyncio.wait((self.task,), timeout=_DISCONNECT_POLL_SECONDS)


def _add_routes(endpoint: Endpoint) -> None:
    async def run(request: Request, key_id: KeyId) -> JSONResponse:
        running = RunningRequest(request, endpoint, await read_json_object(request), key_id)
        try:
            outcome = await running.outcome()
        except ApiError as error:
            error.headers |= running.headers
            raise
        except asyncio.CancelledError:
            return JSONResponse({"detail": "client disconnected"}, 499)
        return JSONResponse(outcome.body, outcome.status_code, {**outcome.headers, **running.headers})

    async def stream(request: Request, key_id: KeyId) -> Response:
        running = RunningRequest(request, endpoint, await read_json_object(request), key_id)
        return EventStream(_events(running), running.headers)

    options: dict[str, Any] = {"methods": ["POST"], "openapi_extra": input_body(endpoint)}
    router.add_api_route(f"/{endpoint.id}", run, summary=f"Run {endpoint.id}", **options)
    router.add_api_route(f"/{endpoint.id}/stream", stream, summary=f"Run {endpoint.id} with progress", **options)


for _endpoint in ENDPOINTS.values():
    _add_routes(_endpoint)


async def _events(running: RunningRequest) -> AsyncIterator[dict[str, Any] | None]:
    """A progress event for each log line; the last event is the output, or the error."""
    outcome = asyncio.create_task(running.outcome())
    outcome.add_done_callback(lambda _: running.lines.put_nowait(None))
    try:
        while True:
            try:
                line = await asyncio.wait_for(running.lines.get(), _KEEP_ALIVE_SECONDS)
            except asyncio.TimeoutError:
                yield None
                continue
            if line is None:
                break
            yield {"status": "IN_PROGRESS", "logs": [asdict(line)]}
        yield _last_event(outcome)
    finally:
        outcome.cancel()
        with suppress(asyncio.CancelledError, ApiError):
            await outcome


def _last_event(outcome: asyncio.Task[Outcome]) -> dict[str, Any]:
    try:
        return outcome.result().body
    except ApiError as error:
        return error.body
