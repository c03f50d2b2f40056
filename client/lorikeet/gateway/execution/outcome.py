"""How a request ended: what the result's GET answers, and what its status and webhook say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from typing_extensions import Self

from lorikeet.gateway.api_error import ERROR_TYPE, RETRYABLE, ApiError
from lorikeet.gateway.execution.log_lines import LogLine


@dataclass(frozen=True)
class Outcome:
    """`body`: the output, or the error. `inference_time`: seconds of the last attempt, whose id is `attempt_id`."""

    status_code: int
    body: dict[str, Any]
    attempt_id: str
    inference_time: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    logs: list[LogLine] = field(default_factory=list)

    @property
    def is_success(self) -> bool:
        return self.status_code == 200

    @property
    def error(self) -> str | None:
        """The error as one text, None after success."""
        if self.is_success:
            return None
        detail = self.body.get("detail")
        return detail if isinstance(detail, str) else f"Invalid status code: {self.status_code}"

    @property
    def error_type(self) -> str | None:
        """fal's name of the error, None after success."""
        return None if self.is_success else self.headers.get(ERROR_TYPE, "validation_error")

    def with_logs(self, logs: list[LogLine]) -> Self:
        return replace(self, logs=list(logs))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "logs": [LogLine(**line) for line in data["logs"]]})

    @classmethod
    def of_error(cls, error: ApiError, attempt_id: str, logs: list[LogLine] | None = None) -> Self:
        headers = {**error.headers, RETRYABLE: "true" if error.status_code in (502, 503) else "false"}
        return cls(error.status_code, error.body, attempt_id, None, headers, logs or [])
