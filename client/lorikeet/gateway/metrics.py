"""The values of the gateway's metrics, in a Prometheus registry of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from lorikeet.gateway import metric_definitions as metric
from lorikeet.gateway.metric_definitions import Definition

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one, which no query here needs

OK = "ok"
OTHER = "other"
# How requests end often enough for a series of its own: the names are fal's.
OUTCOMES = (
    OK,
    "validation_error",
    "client_cancelled",
    "request_timeout",
    "generation_timeout",
    "runner_connection_error",
    "runner_server_error",
    OTHER,
)

WebhookOutcome = Literal["delivered", "failed", "refused"]
_WEBHOOK_OUTCOMES: tuple[WebhookOutcome, ...] = ("delivered", "failed", "refused")
ServerPart = Literal["status", "triton"]

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class GatewayMetrics:
    """Counts what the gateway does. Any thread may call it.

    `endpoints`: the endpoints' names. Their series exist from the start, so that a rate is right from the first event.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        self._submitted = self._counter(metric.SUBMITTED)
        self._ended = self._counter(metric.ENDED)
        self._queue = self._gauge(metric.QUEUE)
        self._wait_seconds = self._histogram(metric.WAIT_SECONDS)
        self._run_seconds = self._histogram(metric.RUN_SECONDS)
        self._steps_per_second = self._histogram(metric.STEPS_PER_SECOND)
        self._http_requests = self._counter(metric.HTTP_REQUESTS)
        self._http_seconds = self._histogram(metric.HTTP_SECONDS)
        self._webhooks = self._counter(metric.WEBHOOKS)
        self._stored_bytes = self._gauge(metric.STORED_BYTES)
        self._stored_files = self._gauge(metric.STORED_FILES)
        self._server_up = self._gauge(metric.SERVER_UP)
        for endpoint in endpoints:
            self._submitted.labels(endpoint)
            self._run_seconds.labels(endpoint)
            for outcome in OUTCOMES:
                self._ended.labels(endpoint, outcome)
        for delivery in _WEBHOOK_OUTCOMES:
            self._webhooks.labels(delivery)
        self.set_queue(0, 0)

    def submitted(self, endpoint: str) -> None:
        self._submitted.labels(endpoint).inc()

    def started(self, wait_seconds: float) -> None:
        """A request starts to run, `wait_seconds` after its submit."""
        self._wait_seconds.observe(wait_seconds)

    def ended(self, endpoint: str, error_type: str | None, run_seconds: float | None) -> None:
        """A request ended. `error_type`: None after success. `run_seconds`: None when it never started."""
        outcome = OK if error_type is None else error_type
        self._ended.labels(endpoint, outcome if outcome in OUTCOMES else OTHER).inc()
        if run_seconds is not None:
            self._run_seconds.labels(endpoint).observe(run_seconds)

    def step(self, rate: float) -> None:
        """A running request reported progress, at `rate` denoising steps per second."""
        self._steps_per_second.observe(rate)

    def set_queue(self, waiting: int, running: int) -> None:
        self._queue.labels("waiting").set(waiting)
        self._queue.labels("running").set(running)

    def webhook(self, outcome: WebhookOutcome) -> None:
        self._webhooks.labels(outcome).inc()

    def set_stored(self, files: int, size: int) -> None:
        """The number of stored files, and their bytes."""
        self._stored_files.set(files)
        self._stored_bytes.set(size)

    def http(self, route: str, method: str, code: int, seconds: float) -> None:
        """An HTTP request was answered. `route`: the route's template, never a path that a client chose."""
        self._http_requests.labels(route, method if method in _METHODS else OTHER, str(code)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def set_server(self, server: str, part: ServerPart, is_up: bool) -> None:
        self._server_up.labels(server, part).set(is_up)

    def text(self) -> str:
        """The metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry).decode()

    def _counter(self, of: Definition) -> Counter:
        return Counter(of.name, of.meaning, of.labels, registry=self.registry)

    def _gauge(self, of: Definition) -> Gauge:
        return Gauge(of.name, of.meaning, of.labels, registry=self.registry)

    def _histogram(self, of: Definition) -> Histogram:
        return Histogram(of.name, of.meaning, of.labels, registry=self.registry, buckets=of.buckets)
