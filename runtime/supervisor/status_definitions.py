"""The metrics of the supervisor, on `LORIKEET_STATUS_PORT`."""

from __future__ import annotations

from runtime.metrics.definition import STAGE, Definition
from runtime.supervisor.fault import Reason

UP = Definition("lorikeet_up", "gauge", "1 while the server is ready and no stage is sick, else 0.")
RESTARTS = Definition(
    "lorikeet_restarts_total",
    "counter",
    "Times that the supervisor replaced the server, by reason.",
    {"reason": tuple(reason.value for reason in Reason)},
)
IN_FLIGHT = Definition("lorikeet_requests_in_flight", "gauge", "Requests that were admitted and have not ended.")
READY = Definition("lorikeet_stage_ready", "gauge", "1 when the stage has loaded, else 0.", STAGE)
HEARTBEAT_AGE = Definition(
    "lorikeet_stage_heartbeat_age_seconds", "gauge", "Time since the stage's last heartbeat.", STAGE
)
QUEUED = Definition(
    "lorikeet_stage_queued",
    "gauge",
    "Work in the stage's queues, and in its step loop.",
    STAGE,
)
RUNNING_SECONDS = Definition(
    "lorikeet_stage_running_seconds", "gauge", "Age of the stage's longest running work, 0 without work.", STAGE
)

STATUS_DEFINITIONS = (UP, RESTARTS, IN_FLIGHT, READY, HEARTBEAT_AGE, QUEUED, RUNNING_SECONDS)
