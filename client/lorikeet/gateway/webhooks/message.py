"""What a webhook says of a request that ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

if TYPE_CHECKING:
    from lorikeet.gateway.execution.outcome import Outcome
    from lorikeet.gateway.queue.submission import Submission


@dataclass(frozen=True)
class Webhook:
    """A message for a URL. `body`: JSON text, which is signed as it is sent."""

    url: str
    request_id: str
    user_id: str
    body: str

    @classmethod
    def of(cls, url: str, submission: Submission, outcome: Outcome) -> Self:
        message: dict[str, Any] = {
            "request_id": submission.request_id,
            "gateway_request_id": outcome.attempt_id,
            "status": "OK" if outcome.is_success else "ERROR",
        }
        if not outcome.is_success:
            message["error"] = f"Invalid status code: {outcome.status_code}"
        message["payload"] = outcome.body
        return cls(url, submission.request_id, submission.key_id, json.dumps(message, separators=(",", ":")))
