"""The faults for which the supervisor replaces the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(str, Enum):
    """The kind of a fault, as metrics and health name it."""

    SERVER_ENDED = "server_ended"
    STAGE_ENDED = "stage_ended"
    STAGE_SILENT = "stage_silent"
    STAGE_IDLE = "stage_idle"
    START_TIMEOUT = "start_timeout"
    SHARED_MEMORY = "shared_memory"


@dataclass(frozen=True)
class Fault:
    """`message` says what is wrong, for the log. `stage`: the stage that is sick, if it is one."""

    reason: Reason
    message: str
    stage: str | None = None
