"""The DBOS workflows of the queue: a request, and the delivery of its webhook.

DBOS is a singleton of the process, so that a process runs one gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from dbos import DBOS, DBOSConfig, EnqueueOptions, StepOptions, WorkflowSerializationFormat, WorkflowStatus

from lorikeet.gateway.api_error import internal_error
from lorikeet.gateway.execution.log_lines import LogLine
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.queue.recorded import CANCELLED, ENDED_BY, LIVE
from lorikeet.gateway.queue.submission import Submission
from lorikeet.gateway.webhooks.deliver import WebhookRefused
from lorikeet.gateway.webhooks.message import Webhook

REQUESTS, WEBHOOKS = "lorikeet_requests", "lorikeet_webhooks"
UNKEPT = "lorikeet_unkept_requests"  # the workflow of requests whose payloads must not be kept
IMMEDIATE = "lorikeet_immediate"  # the queue of requests that end without Triton: their input is invalid
LOG_EVENT = "log"

# All gateways of a database run workflows of this version. It changes when a running request could not continue
# under new code.
_VERSION = "1"
# A submit to an idle gateway starts within 150 ms. Four polls of SQLite take 1 ms.
_POLL_SECONDS = 0.05
_SLOW_POLL_SECONDS = 0.25
_WEBHOOKS_AT_ONCE = 256
_WEBHOOK_ATTEMPTS, _WEBHOOK_PAUSE, _WEBHOOK_BACKOFF = 10, 15.0, 2.0  # ten in two hours
_MAX_RECOVERIES = 1000
_REMOVED_AT_ONCE = 1000
_ANY_RANK = 1
_log = logging.getLogger(__name__)


class Workflows:
    """Registers the workflows and starts DBOS.

    `run`: runs a request to its end. `ended`: called once the outcome is stored. `deliver`: one attempt to send a
    webhook; it raises WebhookRefused to end the attempts.
    """

    def __init__(
        self,
        database_url: str,
        executor_id: str,
        run: Callable[[Submission], Coroutine[Any, Any, Outcome]],
        ended: Callable[[Submission, Outcome], None],
        deliver: Callable[[Webhook], Coroutine[Any, Any, None]],
    ) -> None:
        self._run, self._ended, self._deliver = run, ended, deliver
        config = DBOSConfig(
            name="lorikeet-gateway",
            system_database_url=database_url,
            application_version=_VERSION,
            executor_id=executor_id,
            log_level="WARNING",
        )
        DBOS(config=config)

        for name, function in ((REQUESTS, self._request), (UNKEPT, self._request), (WEBHOOKS, self._webhook)):
            DBOS.workflow(name=name, max_recovery_attempts=_MAX_RECOVERIES)(_as_function(function))

    async def launch(self, capacity: int) -> None:
        """Continue what an earlier process of this gateway left, and take new work: `capacity` requests at a time."""
        DBOS.launch()
        await DBOS.register_queue_async(
            REQUESTS, worker_concurrency=capacity, polling_interval_sec=_POLL_SECONDS, on_conflict="always_update"
        )
        await DBOS.register_queue_async(IMMEDIATE, polling_interval_sec=_SLOW_POLL_SECONDS, on_conflict="always_update")
        await DBOS.register_queue_async(
            WEBHOOKS, worker_concurrency=_WEBHOOKS_AT_ONCE, polling_interval_sec=_SLOW_POLL_SECONDS
        )

    def destroy(self) -> None:
        """Stop taking work. Requests that run continue at the next launch."""
        DBOS.destroy(workflow_completion_timeout_sec=0)

    async def enqueue(self, submission: Submission, queue: str = REQUESTS) -> None:
        """Store a request and queue it. Nothing happens when its id exists."""
        name = REQUESTS if submission.options.keeps_payloads else UNKEPT
        await _enqueue(name, queue, submission.request_id, submission.to_json(), submission.options.rank)

    async def send_webhook(self, submission: Submission, outcome: Outcome) -> None:
        """Deliver the webhook of a request, if it wants one, in the background. A second call has no effect.

        An error of the database is logged: the request has ended all the same.
        """
        if submission.options.webhook is None:
            return
        webhook = Webhook.of(submission.options.webhook, submission, outcome)
        try:
            await _enqueue(WEBHOOKS, WEBHOOKS, f"webhook-{webhook.request_id}", asdict(webhook))
        except Exception:
            _log.exception("the webhook of request %s could not be queued", webhook.request_id)

    async def cancel(self, request_id: str, ended_by: str | None) -> bool:
        """End a request that has no stored outcome. Returns whether it had none. `ended_by`: an error type."""
        await DBOS.update_workflow_attributes_async(request_id, {ENDED_BY: ended_by}, merge=True)
        await DBOS.cancel_workflow_async(request_id)
        status = await self.status(request_id)
        return status is not None and status.status == CANCELLED

    async def take_over(self, executor_id: str) -> None:
        """Queue the requests again that a dead gateway ran."""
        await asyncio.to_thread(DBOS._recover_pending_workflows, [executor_id])

    async def remove(self, request_ids: Sequence[str]) -> None:
        """Delete ended requests with their inputs and outputs."""
        if request_ids:
            await DBOS.delete_workflows_async(list(request_ids))

    async def ended_before(self, unix_seconds: float, only_unkept: bool = False) -> list[str]:
        """Ids of requests and webhooks that ended before a time; not all of them, if there are many."""
        found = await DBOS.list_workflows_async(
            completed_before=datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(),
            name=UNKEPT if only_unkept else None,
            limit=_REMOVED_AT_ONCE,
            load_input=False,
            load_output=False,
        )
        return [status.workflow_id for status in found]

    async def live(self) -> list[WorkflowStatus]:
        """The waiting and running requests, the oldest first, without their inputs."""
        return await DBOS.list_workflows_async(
            queue_name=REQUESTS, status=list(LIVE), load_input=False, load_output=False
        )

    async def load(self, request_ids: Sequence[str]) -> list[WorkflowStatus]:
        """Requests with their inputs and outputs; unknown ids are left out."""
        return (
            await DBOS.list_workflows_async(workflow_ids=list(request_ids), name=[REQUESTS, UNKEPT])
            if request_ids
            else []
        )

    async def status(self, request_id: str) -> WorkflowStatus | None:
        """A request with its input and output."""
        return next(iter(await self.load([request_id])), None)

    async def publish_log(self, lines: list[LogLine]) -> None:
        """Show the log of the request that runs in this context to other gateways."""
        await DBOS.set_event_async(LOG_EVENT, [asdict(line) for line in lines])

    async def log_of(self, request_id: str) -> list[LogLine]:
        """The log that another gateway published of a request that it runs."""
        lines = await DBOS.get_event_async(request_id, LOG_EVENT, timeout_seconds=0)
        return [LogLine(**line) for line in lines or ()]

    async def _request(self, data: dict[str, Any]) -> dict[str, Any]:
        submission = Submission.from_json(data)

        async def run() -> dict[str, Any]:
            return (await self._run(submission)).to_json()

        try:
            stored = await DBOS.run_step_async({"name": "run"}, run)
        except Exception as error:  # the database: without an outcome, the request would run for ever in memory
            _log.exception("request %s failed in the gateway", submission.request_id)
            stored = Outcome.of_error(internal_error(error), submission.request_id).to_json()
        outcome = Outcome.from_json(stored)
        await self.send_webhook(submission, outcome)
        self._ended(submission, outcome)
        return stored

    async def _webhook(self, data: dict[str, Any]) -> None:
        webhook = Webhook(**data)
        options = StepOptions(
            name="deliver",
            retries_allowed=True,
            max_attempts=_WEBHOOK_ATTEMPTS,
            interval_seconds=_WEBHOOK_PAUSE,
            backoff_rate=_WEBHOOK_BACKOFF,
            should_retry=lambda error: not isinstance(error, WebhookRefused),
        )
        await DBOS.run_step_async(options, self._deliver, webhook)


async def _enqueue(
    name: str,
    queue: str,
    workflow_id: str,
    data: dict[str, Any],
    rank: int = _ANY_RANK,
) -> None:
    chosen = EnqueueOptions(
        workflow_name=name,
        queue_name=queue,
        workflow_id=workflow_id,
        app_version=_VERSION,
        serialization_type=WorkflowSerializationFormat.PORTABLE,
        priority=rank,
    )
    await DBOS.enqueue_workflow_with_options_async(chosen, data)


def _as_function(method: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """A function of its own: DBOS marks what it registers, which a bound method does not allow."""

    async def call(data: dict[str, Any]) -> Any:
        return await method(data)

    return call
