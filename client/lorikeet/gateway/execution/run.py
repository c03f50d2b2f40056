"""Runs one request on Triton, again when the server failed, until it ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lorikeet.client.result import Result
from lorikeet.gateway.api_error import ApiError, internal_error
from lorikeet.gateway.execution.log_lines import (
    LogLine,
    StepLog,
    denoising_seconds,
    log_line,
    planned_steps,
    result_lines,
)
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.execution.output import store_output
from lorikeet.gateway.execution.own_files import find_own_files, pack_own_files
from lorikeet.gateway.execution.servers import ServerPool, TritonServer
from lorikeet.gateway.execution.triton_errors import api_error, is_retryable
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.files.stored_file import Lifecycle, StoredFile
from lorikeet.protocol.errors import LorikeetError
from lorikeet.schema import ImageToImageInput

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_log = logging.getLogger(__name__)


@dataclass
class Run:
    """One request while it runs. The callbacks are called in the event loop.

    `attempts`: how often the request may run when the server fails. `triton_priority`: 1 to 3.
    """

    request: ImageToImageInput
    key_id: str
    lifecycle: Lifecycle
    attempts: int
    triton_priority: int
    on_log: Callable[[LogLine], None]
    on_start: Callable[[], None] = lambda: None
    on_rate: Callable[[float], None] = lambda _: None
    attempt_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Runner:
    """Runs requests on the servers and stores their files."""

    def __init__(self, servers: ServerPool, store: FileStore) -> None:
        self._servers, self._store = servers, store

    async def run(self, run: Run) -> Outcome:
        """Wait for a free slot and run the request. A cancel of this coroutine ends the request on Triton too.

        It raises no Exception: an error that is not the request's is logged and becomes its outcome.
        """
        try:
            return await self._run(run, await find_own_files(run.request, self._store, run.key_id))
        except ApiError as error:
            return Outcome.of_error(error, run.attempt_id)
        except Exception as error:  # the disk, S3 or the database
            _log.exception("attempt %s failed in the gateway", run.attempt_id)
            return Outcome.of_error(internal_error(error), run.attempt_id)

    async def _run(self, run: Run, own_files: Mapping[str, StoredFile]) -> Outcome:
        for attempt in range(1, run.attempts + 1):
            try:
                async with self._servers.slot(_weights(run.request)) as server:
                    run.on_start()
                    begun = time.monotonic()
                    result = await self._attempt(server, run, own_files)
            except LorikeetError as error:
                if not is_retryable(error) or attempt == run.attempts:
                    run.on_log(log_line(error.message, "ERROR"))
                    return Outcome.of_error(api_error(error), run.attempt_id)
                run.on_log(log_line(f"attempt {attempt} failed, the request runs again: {error.message}", "WARN"))
                await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))
                run.attempt_id = str(uuid.uuid4())
                continue
            for line in result_lines(result.response):
                run.on_log(line)
            body = await store_output(result, self._store, run.key_id, run.lifecycle)
            return Outcome(200, body, run.attempt_id, round(time.monotonic() - begun, 3))
        raise AssertionError("a run has at least one attempt")

    async def _attempt(self, server: TritonServer, run: Run, own_files: Mapping[str, StoredFile]) -> Result:
        packed, files = await pack_own_files(run.request, own_files, self._store)
        job = server.client.send(packed, files, request_id=run.attempt_id, priority=run.triton_priority)
        log = StepLog(run.on_log, run.on_rate)
        try:
            result = await job.result(on_progress=log)
        except LorikeetError as error:
            if is_retryable(error):
                self._servers.note_failure(server)
            raise
        except BaseException:
            await asyncio.shield(job.abandon())
            raise
        log.finish(planned_steps(packed), denoising_seconds(result.response))
        return result


def _weights(request: ImageToImageInput) -> list[str]:
    """The names of the weights that decide which server a request should go to, the largest first."""
    return [request.model_name, *([request.unet_name] if request.unet_name else []), *(x.path for x in request.loras)]
