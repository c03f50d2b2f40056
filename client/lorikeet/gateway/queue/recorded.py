"""What the database holds of a request: its submission, and its outcome once it has ended."""

from __future__ import annotations

from dbos import WorkflowStatus

from lorikeet.gateway.api_error import REQUEST_TIMEOUT, ApiError, cancelled, internal_error, start_timeout
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.queue.submission import Submission

ENQUEUED, PENDING, SUCCESS, CANCELLED = "ENQUEUED", "PENDING", "SUCCESS", "CANCELLED"
LIVE = (ENQUEUED, PENDING)
ENDED_BY = "ended_by"  # attribute of a cancelled request: the error type of what ended it


def submission_of(status: WorkflowStatus) -> Submission:
    """The submission that started a workflow."""
    assert status.input is not None, "loaded with its input"
    return Submission.from_json(status.input["args"][0])


def outcome_of(status: WorkflowStatus) -> Outcome | None:
    """How a request ended; None while it waits or runs."""
    if status.status in LIVE:
        return None
    if status.status == SUCCESS and status.output is not None:
        return Outcome.from_json(status.output)
    return Outcome.of_error(_error(status), status.workflow_id)


def _error(status: WorkflowStatus) -> ApiError:
    if status.status == CANCELLED:
        is_timeout = (status.attributes or {}).get(ENDED_BY) == REQUEST_TIMEOUT
        return start_timeout() if is_timeout else cancelled()
    return internal_error()
