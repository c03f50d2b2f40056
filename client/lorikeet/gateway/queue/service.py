"""Submit, find and cancel requests of the durable queue."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any, Literal

from dbos import WorkflowStatus

from lorikeet.gateway.api_error import ApiError, cancelled, start_timeout
from lorikeet.gateway.endpoints import ENDPOINTS, Endpoint
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.execution.run import Run, Runner
from lorikeet.gateway.metrics import GatewayMetrics
from lorikeet.gateway.queue.board import Board
from lorikeet.gateway.queue.record import COMPLETED, IN_QUEUE, Record
from lorikeet.gateway.queue.recorded import PENDING, outcome_of, submission_of
from lorikeet.gateway.queue.submission import LOW, Options, RequestIds, Submission, digest, has_seed, seeded
from lorikeet.gateway.queue.workflows import IMMEDIATE, REQUESTS, Workflows
from lorikeet.gateway.settings import GatewaySettings
from lorikeet.gateway.webhooks.deliver import WebhookRefused, WebhookSender
from lorikeet.gateway.webhooks.message import Webhook

CancelAnswer = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]

_UNKEPT_SECONDS = 600.0
_PUBLISH_SECONDS = 0.5
_LOW_TRITON_PRIORITY, _TRITON_PRIORITY = 3, 2
_log = logging.getLogger(__name__)


class QueueService:
    """The queue of one gateway. Its methods belong to one event loop."""

    def __init__(
        self,
        settings: GatewaySettings,
        runner: Runner,
        ids: RequestIds,
        sender: WebhookSender,
        metrics: GatewayMetrics,
    ) -> None:
        self.board = Board()
        self.workflows = Workflows(settings.database_url, settings.executor_id, self._run, self._ended, self._deliver)
        self._settings, self._runner, self._ids = settings, runner, ids
        self._sender, self._metrics = sender, metrics

    async def submit(
        self,
        endpoint: Endpoint,
        body: dict[str, Any],
        options: Options,
        key_id: str,
        idempotency_key: str | None,
        max_queue_length: int | None,
    ) -> Record:
        """Accept a request; it survives from here on. A repeated submit gets the record of the first.

        Raises ApiError: 429 when too many wait, 422 when an Idempotency-Key came with another input before.
        """
        submit_digest = digest(endpoint.id, body, options)
        request_id, known = await self._request_id(key_id, body, submit_digest, idempotency_key)
        if known is not None:
            return known
        self._check_limits(key_id, max_queue_length)
        submission = Submission(request_id, endpoint.id, key_id, seeded(body), options, time.time(), submit_digest)
        record = self.board.add(_record(submission))
        try:
            await self.workflows.enqueue(submission, REQUESTS if _is_valid(endpoint, body) else IMMEDIATE)
        except BaseException:
            self.board.remove([record.request_id])
            raise
        self._metrics.submitted(endpoint.id)
        return record

    async def find(self, request_id: str, key_id: str) -> Record | None:
        """A request of this key, from memory, else from the database."""
        record = self.board.get(request_id)
        if record is None and (status := await self.workflows.status(request_id)) is not None:
            record = self.board.add(_recorded(status))
        return record if record is not None and record.key_id == key_id else None

    async def cancel(self, record: Record) -> CancelAnswer:
        """End a request that has not ended; the running network call ends first."""
        was_waiting = record.state == IN_QUEUE
        if record.state == COMPLETED or not await self.end_early(record, cancelled()):
            return "ALREADY_COMPLETED"
        return "OK" if was_waiting else "CANCELLATION_REQUESTED"

    async def end_early(self, record: Record, error: ApiError) -> bool:
        """End a request with an error. Returns False when it has an outcome already."""
        if not await self.workflows.cancel(record.request_id, error.error_type):
            return False
        outcome = Outcome.of_error(error, record.request_id, record.logs)
        if record.task is not None:
            record.task.cancel()
        self._archive(record, outcome)
        self._metrics.ended(record.endpoint, outcome.error_type, record.run_seconds)
        status = await self.workflows.status(record.request_id)
        if status is not None:
            await self.workflows.send_webhook(submission_of(status), outcome)
        return True

    async def expire(self, now: float) -> None:
        """End the waiting requests whose start deadline has passed."""
        for record in self.board.live():
            if record.state == IN_QUEUE and record.start_deadline is not None and record.start_deadline < now:
                await self.end_early(record, start_timeout())

    async def adopt(self, request_ids: list[str]) -> None:
        """Take requests into memory that another process accepted."""
        for status in await self.workflows.load(request_ids):
            self.board.add(_recorded(status))

    async def follow(self, status: WorkflowStatus) -> None:
        """Note what the gateway that runs a request published of it."""
        record = self.board.get(status.workflow_id)
        if record is not None and record.task is None and status.executor_id != self._settings.executor_id:
            record.start((status.dequeued_at or 0) / 1000)
            record.replace_logs(await self.workflows.log_of(record.request_id))

    async def settle(self, records: list[Record]) -> None:
        """Note the outcomes of requests that ended elsewhere."""
        by_id = {record.request_id: record for record in records}
        for status in await self.workflows.load(list(by_id)):
            record, outcome = by_id[status.workflow_id], outcome_of(status)
            if outcome is not None:
                if record.task is not None:  # cancelled through another gateway
                    record.task.cancel()
                self._archive(record, outcome)

    async def remove_old(self, now: float) -> None:
        """Delete the requests that ended long ago, and those whose payloads are not kept once clients had time to read
        them."""
        old = await self.workflows.ended_before(now - self._settings.keep_results_s)
        old += await self.workflows.ended_before(now - _UNKEPT_SECONDS, only_unkept=True)
        await self.workflows.remove(old)
        self.board.remove(old)

    async def stop_running(self) -> None:
        """End the requests on Triton. They run again at the next start."""
        tasks = [record.task for record in self.board.live() if record.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _request_id(
        self, key_id: str, body: dict[str, Any], submit_digest: str, idempotency_key: str | None
    ) -> tuple[str, Record | None]:
        """The id of a submit, and the record of an equal one before it."""
        if idempotency_key is not None:
            request_id = self._ids.keyed(key_id, idempotency_key)
            known = await self.find(request_id, key_id)
            if known is not None and known.digest != submit_digest:
                raise ApiError(422, "Idempotency-Key: a request with another input used this key", "bad_request")
            return request_id, known
        if not has_seed(body):
            return self._ids.new(), None
        this, before = self._ids.recent(key_id, submit_digest)
        for request_id in (this, before):
            known = await self.find(request_id, key_id)
            if known is not None and self._ids.is_recent(known.submitted_at):
                return request_id, known
        return this, None

    def _check_limits(self, key_id: str, max_queue_length: int | None) -> None:
        waiting = self.board.waiting()
        if waiting >= self._settings.max_waiting or (max_queue_length is not None and waiting > max_queue_length):
            raise ApiError(429, f"{waiting} requests wait already", "queue_full", {"Retry-After": "5"})
        if 0 < self._settings.requests_per_key <= self.board.of_key(key_id):
            raise ApiError(
                429,
                f"{self._settings.requests_per_key} requests of this key wait or run already",
                "concurrent_requests_limit",
                {"X-Fal-Needs-Retry": "1", "Retry-After": "5"},
            )

    async def _run(self, submission: Submission) -> Outcome:
        """The step of a workflow that makes the pictures."""
        record = self.board.add(_record(submission))
        try:
            request = ENDPOINTS[submission.endpoint].read(submission.body)
        except ApiError as error:
            return Outcome.of_error(error, submission.request_id)
        if submission.start_deadline is not None and submission.start_deadline < time.time():
            return Outcome.of_error(start_timeout(), submission.request_id)
        is_low = submission.options.priority == LOW
        run = Run(
            request=request,
            key_id=submission.key_id,
            lifecycle=submission.options.lifecycle,
            attempts=self._settings.max_attempts if submission.options.may_retry else 1,
            triton_priority=_LOW_TRITON_PRIORITY if is_low else _TRITON_PRIORITY,
            on_log=record.add_log,
            on_start=lambda: self._start(record),
            on_rate=self._metrics.step,
        )
        first_attempt = run.attempt_id
        record.task = task = asyncio.create_task(self._runner.run(run))
        publisher = asyncio.create_task(self._publish_log(record)) if self._settings.is_shared else None
        try:
            outcome = await task
        finally:
            record.task = None
            if publisher is not None:
                publisher.cancel()
        if outcome.attempt_id == first_attempt:
            # fal's attempts have ids of their own only from the second on. On Triton the first needs one too: after a
            # restart of the gateway, the request runs again while its old job may still live.
            outcome = replace(outcome, attempt_id=submission.request_id)
        return outcome.with_logs(record.logs)

    async def _publish_log(self, record: Record) -> None:
        """Show the log to the gateways that share the database, twice a second."""
        published = 0
        while True:
            if (count := len(record.logs)) > published:
                try:
                    await self.workflows.publish_log(record.logs)
                    published = count
                except Exception:
                    _log.exception("the log of request %s could not be published", record.request_id)
            await asyncio.sleep(_PUBLISH_SECONDS)

    async def _deliver(self, webhook: Webhook) -> None:
        """One attempt to send a webhook."""
        try:
            await self._sender.deliver(webhook)
        except WebhookRefused:
            self._metrics.webhook("refused")
            raise
        except Exception:
            self._metrics.webhook("failed")
            raise
        self._metrics.webhook("delivered")

    def _start(self, record: Record) -> None:
        """The request got a slot; again, when the server failed before."""
        now = time.time()
        if record.state == IN_QUEUE:
            self._metrics.started(now - record.submitted_at)
        record.start(now)

    def _ended(self, submission: Submission, outcome: Outcome) -> None:
        record = self.board.get(submission.request_id)
        if record is not None:
            self._archive(record, outcome)
        run_seconds = record.run_seconds if record is not None else None
        self._metrics.ended(submission.endpoint, outcome.error_type, run_seconds)

    def _archive(self, record: Record, outcome: Outcome) -> None:
        record.end(outcome)
        self.board.archive(record)


def _is_valid(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    try:
        endpoint.read(body)
    except ApiError:
        return False
    return True


def _record(submission: Submission) -> Record:
    return Record(
        submission.request_id,
        submission.key_id,
        submission.endpoint,
        submission.submitted_at,
        submission.digest,
        submission.options.rank,
        submission.start_deadline,
    )


def _recorded(status: WorkflowStatus) -> Record:
    """The record of a request that another process accepted."""
    record = _record(submission_of(status))
    if status.status == PENDING:
        record.start((status.dequeued_at or status.updated_at or 0) / 1000)
    if (outcome := outcome_of(status)) is not None:
        record.end(outcome)
    return record
