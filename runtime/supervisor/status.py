"""What the supervisor knows about its server: health, and metrics in Prometheus' text format."""

from __future__ import annotations

import time
from typing import Any, Protocol

from runtime.jobs.heartbeats import Beat
from runtime.jobs.job_table import STAGES, JobTable
from runtime.metrics.definition import Series
from runtime.metrics.prometheus_text import prometheus_text
from runtime.supervisor.fault import Fault, Reason
from runtime.supervisor.status_definitions import HEARTBEAT_AGE, IN_FLIGHT, QUEUED, READY, RESTARTS, RUNNING_SECONDS, UP

OK = "ok"


class WatchedServer(Protocol):
    """A server as its status needs it."""

    @property
    def job_table(self) -> JobTable: ...

    def fault(self) -> Fault | None: ...


class Status:
    """The supervisor's thread writes it; any thread may read it.

    `is_ready`: whether the server has answered since its start. `is_stopping`: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.server: WatchedServer | None = None
        self.is_ready = self.is_stopping = False
        self._restarts = dict.fromkeys(Reason, 0)

    def count_restart(self, fault: Fault) -> None:
        self._restarts[fault.reason] += 1

    def health(self) -> dict[str, Any]:
        """The body of `/health`. `status` is `ok`, `starting`, `sick` or `stopping`; `sick` says what is wrong."""
        fault = self._fault()
        beats = self._beats()
        return {
            "status": self._word(fault),
            "sick": fault and {"stage": fault.stage, "reason": fault.reason.value, "message": fault.message},
            "restarts": sum(self._restarts.values()),
            "stages": {stage: _stage(beats.get(stage)) for stage in STAGES},
        }

    def metrics(self) -> str:
        """The body of `/metrics`. A stage without a heartbeat has no age and no activity."""
        beats = self._beats()
        live = len(self.server.job_table.live()) if self.server else 0
        values: dict[Series, float] = {UP.series(): self._word(self._fault()) == OK}
        values |= {RESTARTS.series(reason=reason.value): count for reason, count in self._restarts.items()}
        values[IN_FLIGHT.series()] = live
        values |= {READY.series(stage=stage): stage in beats and beats[stage].ready for stage in STAGES}
        values |= {HEARTBEAT_AGE.series(stage=stage): beat.age for stage, beat in beats.items()}
        values |= {QUEUED.series(stage=stage): beat.activity.queued for stage, beat in beats.items()}
        values |= {RUNNING_SECONDS.series(stage=stage): _running_seconds(beat) for stage, beat in beats.items()}
        return prometheus_text(values)

    def _word(self, fault: Fault | None) -> str:
        if self.is_stopping:
            return "stopping"
        if fault is not None:
            return "sick"
        return OK if self.is_ready else "starting"

    def _fault(self) -> Fault | None:
        return self.server.fault() if self.server else None

    def _beats(self) -> dict[str, Beat]:
        return self.server.job_table.heartbeats.read() if self.server else {}


def _stage(beat: Beat | None) -> dict[str, Any]:
    if beat is None:
        return {"ready": False, "heartbeat_age_seconds": None, "queued": 0, "running": None}
    longest = beat.activity.longest
    return {
        "ready": beat.ready,
        "heartbeat_age_seconds": round(beat.age, 3),
        "queued": beat.activity.queued,
        "running": longest and {"what": longest.what, "seconds": round(_running_seconds(beat), 3)},
    }


def _running_seconds(beat: Beat) -> float:
    return time.monotonic() - beat.activity.longest.since if beat.activity.longest else 0.0
