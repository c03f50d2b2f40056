"""The gateway's own metrics: names, labels and meanings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_HTTP_SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_STEPS_PER_SECOND = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class Definition:
    """A metric. `name` follows Prometheus' conventions. `buckets`: a histogram's upper bounds, without infinity.

    Label values come from fixed sets and from the gateway's settings, never from a request.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SUBMITTED = Definition(
    "lorikeet_gateway_requests_submitted_total",
    "counter",
    "Requests that the gateway accepted, by endpoint.",
    ("endpoint",),
)
ENDED = Definition(
    "lorikeet_gateway_requests_ended_total",
    "counter",
    "Requests that ended. `outcome` is `ok`, or fal's name of the error (`other` for rare ones).",
    ("endpoint", "outcome"),
)
QUEUE = Definition(
    "lorikeet_gateway_queue_requests",
    "gauge",
    "Requests that are `waiting` or `running`, of all gateways that share the database.",
    ("state",),
)
WAIT_SECONDS = Definition("lorikeet_gateway_wait_seconds", "histogram", "Time from submit to start.", buckets=_SECONDS)
RUN_SECONDS = Definition(
    "lorikeet_gateway_run_seconds",
    "histogram",
    "Time from start to end, with repeated attempts. Failed requests are included.",
    ("endpoint",),
    _SECONDS,
)
STEPS_PER_SECOND = Definition(
    "lorikeet_gateway_steps_per_second",
    "histogram",
    "Denoising steps per second of one request, observed at each progress report.",
    buckets=_STEPS_PER_SECOND,
)
HTTP_REQUESTS = Definition(
    "lorikeet_gateway_http_requests_total",
    "counter",
    "HTTP requests by route, method and status code; 499 is a client that closed the connection.",
    ("route", "method", "code"),
)
HTTP_SECONDS = Definition(
    "lorikeet_gateway_http_request_seconds",
    "histogram",
    "Time from an HTTP request to the end of its answer.",
    ("route",),
    _HTTP_SECONDS,
)
WEBHOOKS = Definition(
    "lorikeet_gateway_webhooks_total",
    "counter",
    "Attempts to deliver a webhook: `delivered`, `failed` (it may be repeated) or `refused` (it never will).",
    ("outcome",),
)
STORED_BYTES = Definition("lorikeet_gateway_stored_bytes", "gauge", "Bytes of uploaded and generated files.")
STORED_FILES = Definition("lorikeet_gateway_stored_files", "gauge", "Number of uploaded and generated files.")
SERVER_UP = Definition(
    "lorikeet_gateway_server_up",
    "gauge",
    "1 when this scrape got the metrics of the server's supervisor (`status`) or of its Triton (`triton`), else 0.",
    ("server", "part"),
)

GATEWAY_DEFINITIONS = (
    SUBMITTED,
    ENDED,
    QUEUE,
    WAIT_SECONDS,
    RUN_SECONDS,
    STEPS_PER_SECOND,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    WEBHOOKS,
    STORED_BYTES,
    STORED_FILES,
    SERVER_UP,
)
