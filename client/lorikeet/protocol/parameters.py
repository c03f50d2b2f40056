"""The Triton request parameters that travel beside the input: their names, ranges and defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lorikeet.protocol.encodable import is_encodable
from lorikeet.protocol.shorten import shorten

JOB_TOKEN = "job_token"
JOB_PRIORITY = "job_priority"
JOB_TIMEOUT_MS = "job_timeout_ms"
JOB_LEASE_MS = "job_lease_ms"
IMAGES = "images"
DATA_URI = "data_uri"  # the value of IMAGES that puts the encoded images into RESPONSE

DEFAULT_PRIORITY = 2
MAX_PRIORITY = 3
MAX_NAME = 255  # characters of a request id, and of a token
MAX_TIMEOUT_MS = 7 * 24 * 3600 * 1000

Value = str | int | bool


class ParameterError(ValueError):
    """A request parameter has a value that is not allowed. `name` is the parameter's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class JobParameters:
    """The parameters of one request.

    `token`: the sender's secret; with the request id it addresses the job. `priority`: jobs of priority 1 start before
    those of 2, and those of 2 before those of 3. `timeout`: seconds, or None for no limit; the server ends the job when
    they have passed since its admission. `lease`: seconds, or None; the server ends the job when its sender has not
    renewed the lease for so long. It needs a token. `data_uri`: whether RESPONSE holds the images as data URIs.
    """

    token: str = ""
    priority: int = DEFAULT_PRIORITY
    timeout: float | None = None
    data_uri: bool = False
    lease: float | None = None

    def to_triton(self) -> dict[str, Value]:
        """The parameters that differ from their defaults. Triton has no fractions: milliseconds are rounded up.

        Raises ParameterError for a time that is not finite.
        """
        found: dict[str, Value] = {}
        if self.token:
            found[JOB_TOKEN] = self.token
        if self.priority != DEFAULT_PRIORITY:
            found[JOB_PRIORITY] = self.priority
        if self.timeout is not None:
            found[JOB_TIMEOUT_MS] = _milliseconds(JOB_TIMEOUT_MS, self.timeout)
        if self.lease is not None:
            found[JOB_LEASE_MS] = _milliseconds(JOB_LEASE_MS, self.lease)
        if self.data_uri:
            found[IMAGES] = DATA_URI
        return found

    @classmethod
    def from_triton(cls, parameters: Mapping[str, Value]) -> JobParameters:
        """Read the parameters of a Triton request; unknown ones are ignored. Raises ParameterError."""
        timeout, lease = (_whole_number(parameters, name, MAX_TIMEOUT_MS) for name in (JOB_TIMEOUT_MS, JOB_LEASE_MS))
        token = str(parameters.get(JOB_TOKEN, ""))
        check_name(JOB_TOKEN, token)
        return cls(
            token=token,
            priority=_whole_number(parameters, JOB_PRIORITY, MAX_PRIORITY) or DEFAULT_PRIORITY,
            timeout=timeout / 1000 if timeout else None,
            data_uri=parameters.get(IMAGES) == DATA_URI,
            lease=lease / 1000 if lease else None,
        )


def check_name(name: str, value: str) -> None:
    """Raises ParameterError for a request id or token (`name`) that calls of the model `jobs` could not give."""
    if len(value) > MAX_NAME:
        raise ParameterError(name, f"expected at most {MAX_NAME} characters, found {len(value)}")
    if not is_encodable(value):
        raise ParameterError(name, "expected valid Unicode, found half of a surrogate pair")


def _milliseconds(name: str, seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ParameterError(name, f"expected a finite number of seconds, found {seconds}")
    return max(1, math.ceil(seconds * 1000))


def _whole_number(parameters: Mapping[str, Value], name: str, most: int) -> int | None:
    """The parameter as an integer from 1 to `most`, given as a number or as text; None when it is absent."""
    value = parameters.get(name)
    if value is None:
        return None
    text = "" if isinstance(value, bool) else str(value)
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most:
        return int(text)
    raise ParameterError(name, f"expected a whole number from 1 to {most}, found {shorten(repr(value), 60)}")
