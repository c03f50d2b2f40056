"""The heartbeats in the job table: each stage writes its own record, and the supervisor reads them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.jobs.activity import Activity, Running

_LONGEST_GAP = 2.0  # seconds without a heartbeat after which a stage counts as interrupted
_NOTHING = Activity()


@dataclass(frozen=True)
class Beat:
    """A stage's last heartbeat: its process, its age in seconds, and what the stage does.

    `idle_beats`: in how many heartbeats, up to this one, the stage had queued work and ran nothing.
    """

    pid: int
    age: float
    ready: bool
    activity: Activity
    idle_beats: int


class Heartbeats:
    """The last heartbeat of each stage. Their times are CLOCK_MONOTONIC seconds, which all processes share."""

    def __init__(self, records: Any, stages: Sequence[str]) -> None:
        """`records`: the array `beats` of `JobRecords`, with one record for each of `stages`."""
        self._records, self._stages = records, stages

    def write(self, stage: str, pid: int, *, ready: bool, activity: Activity = _NOTHING, idle_beats: int = 0) -> None:
        """Write the stage's heartbeat."""
        now, place = time.monotonic(), self._stages.index(stage)
        last = self._records[place]
        since = float(last["since"]) if now - float(last["at"]) < _LONGEST_GAP else now
        what, begun = (activity.longest.what, activity.longest.since) if activity.longest else ("", 0.0)
        self._records[place] = (pid, now, since, ready, activity.queued, idle_beats, what.encode()[:64], begun)

    def read(self) -> dict[str, Beat]:
        """The last heartbeat of each stage that has written one."""
        now = time.monotonic()
        return {
            stage: Beat(
                pid=int(beat["pid"]),
                age=now - float(beat["at"]),
                ready=bool(beat["ready"]),
                activity=Activity(
                    int(beat["queued"]),
                    Running(beat["running"].decode(errors="replace"), float(beat["running_since"]))
                    if beat["running"]
                    else None,
                ),
                idle_beats=int(beat["idle_beats"]),
            )
            for stage, beat in zip(self._stages, self._records, strict=True)
            if beat["pid"]
        }

    def uninterrupted_since(self, stage: str) -> float | None:
        """When the stage began to beat without an interruption; None while it is interrupted."""
        beat = self._records[self._stages.index(stage)]
        return float(beat["since"]) if time.monotonic() - float(beat["at"]) < _LONGEST_GAP else None
