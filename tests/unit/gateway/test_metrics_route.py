"""`/metrics`: the gateway's own values, and those of every server that answers, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from fastapi import FastAPI, Response
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from lorikeet.gateway.http_metrics import HttpMetrics
from lorikeet.gateway.merge_metrics import merge_metrics
from lorikeet.gateway.metric_definitions import GATEWAY_DEFINITIONS
from lorikeet.gateway.metrics import OUTCOMES, GatewayMetrics
from lorikeet.gateway.routes import metrics as metrics_module
from lorikeet.gateway.routes.metrics import CONTENT_TYPE, metrics_router
from lorikeet.gateway.watched_servers import WatchedServer
from tests.unit.gateway.supervisors import Supervisor, answering

ENDPOINT = "fal-ai/lora"
TRITON = b"""# HELP nv_inference_request_success Number of successful requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="finish",version="1"} 7
# HELP lorikeet_stage_seconds Time that the stage worked
# TYPE lorikeet_stage_seconds histogram
lorikeet_stage_seconds_bucket{stage="denoiser",le="+Inf"} 2
lorikeet_stage_seconds_sum{stage="denoiser"} 3.5
lorikeet_stage_seconds_count{stage="denoiser"} 2
"""
Sample = tuple[str, tuple[tuple[str, str], ...]]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(tmp_path)
    yield running
    running.stop()


def _values(text: str) -> dict[Sample, float]:
    """Every sample of the text, read by Prometheus' own parser for Python. No sample may come twice.

    The parser adds `_total` to a counter's name where Triton's name lacks it.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(values) == len(samples)
    return values


async def _no_levels() -> None:
    pass


def _get(metrics: GatewayMetrics, servers: Sequence[WatchedServer]) -> str:
    app = FastAPI()
    app.include_router(metrics_router(metrics, servers, _no_levels))
    with TestClient(app) as client:
        answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    text: str = answer.text
    return text


def _metrics(servers: Sequence[WatchedServer] = ()) -> dict[Sample, float]:
    return _values(_get(GatewayMetrics([ENDPOINT]), servers))


def test_each_event_has_its_value() -> None:
    metrics = GatewayMetrics([ENDPOINT])
    metrics.submitted(ENDPOINT)
    metrics.started(0.2)
    metrics.step(4.0)
    metrics.ended(ENDPOINT, None, 3.0)
    metrics.ended(ENDPOINT, "client_cancelled", None)
    metrics.ended(ENDPOINT, "no_such_error", 1.0)
    metrics.set_queue(5, 2)
    metrics.webhook("delivered")
    metrics.set_stored(3, 1 << 20)
    values = _values(metrics.text())

    def value(name: str, **labels: str) -> float:
        return values[f"lorikeet_gateway_{name}", tuple(sorted(labels.items()))]

    assert value("requests_submitted_total", endpoint=ENDPOINT) == 1
    assert value("wait_seconds_count") == 1 and value("wait_seconds_sum") == 0.2
    assert value("wait_seconds_bucket", le="0.1") == 0 and value("wait_seconds_bucket", le="0.3") == 1
    assert value("steps_per_second_sum") == 4
    ended = {outcome: value("requests_ended_total", endpoint=ENDPOINT, outcome=outcome) for outcome in OUTCOMES}
    assert {outcome for outcome, count in ended.items() if count} == {"ok", "client_cancelled", "other"}
    assert value("run_seconds_sum", endpoint=ENDPOINT) == 4  # the cancelled one never ran
    assert (value("queue_requests", state="waiting"), value("queue_requests", state="running")) == (5, 2)
    assert value("webhooks_total", outcome="delivered") == 1 and value("webhooks_total", outcome="failed") == 0
    assert (value("stored_files"), value("stored_bytes")) == (3, 1 << 20)


def test_every_definition_is_exported_with_its_kind() -> None:
    metrics = GatewayMetrics([ENDPOINT])
    metrics.http("/health", "GET", 200, 0.1)
    metrics.set_server("a:8001", "status", True)
    lines = metrics.text().splitlines()
    for definition in GATEWAY_DEFINITIONS:
        assert f"# TYPE {definition.name} {definition.kind}" in lines


def test_one_server_has_no_label_of_its_own(supervisor: Supervisor) -> None:
    with answering(TRITON) as triton:
        values = _metrics([WatchedServer("a:8001", supervisor.url, triton)])
    assert values["lorikeet_up", ()] == 1
    assert values["lorikeet_stage_ready", (("stage", "denoiser"),)] == 1
    assert values["lorikeet_stage_seconds_sum", (("stage", "denoiser"),)] == 3.5
    assert values["nv_inference_request_success_total", (("model", "finish"), ("version", "1"))] == 7
    for part in ("status", "triton"):
        assert values["lorikeet_gateway_server_up", (("part", part), ("server", "a:8001"))] == 1


def test_samples_of_several_servers_have_the_servers_names(supervisor: Supervisor) -> None:
    with answering(TRITON) as first, answering(TRITON.replace(b" 7", b" 9")) as second:
        text = _get(
            GatewayMetrics([ENDPOINT]),
            [WatchedServer("a:8001", supervisor.url, first), WatchedServer("b:8001", None, second)],
        )
    values = _values(text)
    for server, count in (("a:8001", 7), ("b:8001", 9)):
        labels = (("model", "finish"), ("server", server), ("version", "1"))
        assert values["nv_inference_request_success_total", labels] == count
    assert values["lorikeet_up", (("server", "a:8001"),)] == 1
    assert text.count("# TYPE lorikeet_stage_seconds ") == 1  # Prometheus refuses a second one


def test_a_dead_server_is_left_out(supervisor: Supervisor) -> None:
    dead = WatchedServer("b:8001", "http://127.0.0.1:9", "http://127.0.0.1:9")
    values = _metrics([WatchedServer("a:8001", supervisor.url, None), dead])
    assert values["lorikeet_up", (("server", "a:8001"),)] == 1
    for part in ("status", "triton"):
        assert values["lorikeet_gateway_server_up", (("part", part), ("server", "b:8001"))] == 0
    assert not any(("server", "b:8001") in labels for name, labels in values if "gateway" not in name)


def test_an_error_page_is_no_metric() -> None:
    with answering(b"lorikeet_up 1\n", code=404) as url:
        values = _metrics([WatchedServer("a:8001", url, None)])
    assert ("lorikeet_up", ()) not in values
    assert values["lorikeet_gateway_server_up", (("part", "status"), ("server", "a:8001"))] == 0


def test_a_large_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "_MAX_BYTES", 1000)
    with answering(b"lorikeet_up 1\n" * 100) as url:
        values = _metrics([WatchedServer("a:8001", url, None)])
    assert ("lorikeet_up", ()) not in values


def test_what_is_no_metric_is_left_out() -> None:
    text = 'a{b="1"} 1\n<html>\n# EOF\na b c\nlorikeet_gateway_stored_bytes 9\n# TYPE c gauge\n{x="y"} 1\n'
    assert merge_metrics([(None, text)]) == 'a{b="1"} 1\n'


def test_a_sample_keeps_its_timestamp_and_its_own_label() -> None:
    text = 'a 1 1700000000000\na{server="own"} 2\n'
    assert merge_metrics([("s", text)]) == 'a{server="s"} 1 1700000000000\na{server="own"} 2\n'


def test_http_requests_are_counted_by_route() -> None:
    metrics = GatewayMetrics([ENDPOINT])
    app = FastAPI()

    @app.get("/files/{name}")
    async def file(name: str) -> Response:
        return Response(status_code=404 if name == "gone" else 200)

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            await asyncio.sleep(0.2)
            yield b"two"

        return StreamingResponse(parts())

    app.add_middleware(HttpMetrics, metrics=metrics)
    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("/files/a", "/files/b", "/files/gone", "/no/such/path", "/fails"):
            client.get(path)
        client.request("BREW", "/no/such/path")
        assert client.get("/stream").text == "one two"
    counted = {
        tuple(value for _, value in labels): count
        for (name, labels), count in _values(metrics.text()).items()
        if name == "lorikeet_gateway_http_requests_total"
    }
    assert counted == {  # code, method, route
        ("200", "GET", "/files/{name}"): 2,
        ("404", "GET", "/files/{name}"): 1,
        ("404", "GET", "unmatched"): 1,
        ("404", "other", "unmatched"): 1,
        ("500", "GET", "/fails"): 1,
        ("200", "GET", "/stream"): 1,
    }
    seconds = _values(metrics.text())["lorikeet_gateway_http_request_seconds_sum", (("route", "/stream"),)]
    assert 0.2 <= seconds < 5
