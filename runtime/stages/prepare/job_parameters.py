"""The terms that a request comes with, beside its input: Triton request parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.stage_errors import InvalidArgument

_LOWEST = 3
_NORMAL = 2
_LONGEST_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True)
class JobParameters:
    """`job_token`: the sender's secret, for progress and cancel. `job_priority`: 1 goes before 2, which is normal, and
    3 behind it. `job_timeout_ms`: milliseconds from now to `deadline` (CLOCK_MONOTONIC seconds)."""

    token: str
    priority: int
    deadline: float


def read_job_parameters(parameters: Mapping[str, str | int | bool], now: float) -> JobParameters:
    """The terms in a request's parameters. Raises InvalidArgument."""
    timeout = _integer(parameters, "job_timeout_ms", _LONGEST_MS)
    return JobParameters(
        token=str(parameters.get("job_token", "")),
        priority=_integer(parameters, "job_priority", _LOWEST) or _NORMAL,
        deadline=now + timeout / 1000 if timeout else math.inf,
    )


def _integer(parameters: Mapping[str, str | int | bool], name: str, most: int) -> int | None:
    """A number from 1 to `most`, or the same as text; None where there is none."""
    value = parameters.get(name)
    if value is None:
        return None
    text = "" if isinstance(value, bool) else str(value)
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most:
        return int(text)
    raise InvalidArgument(name, f"a whole number from 1 to {most}")
