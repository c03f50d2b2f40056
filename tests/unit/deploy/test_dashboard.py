"""The Grafana dashboard: every query is valid PromQL over metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from lorikeet.gateway.metric_definitions import GATEWAY_DEFINITIONS
from runtime.metrics.stage_definitions import STAGE_DEFINITIONS
from runtime.settings import ROOT
from runtime.supervisor.status_definitions import STATUS_DEFINITIONS

Labels = frozenset[str]
_OF_HISTOGRAM = ("_bucket", "_sum", "_count")
_SERVER = "server"  # `/metrics` adds it when there are several servers


def _known() -> dict[str, tuple[str, Labels]]:
    """Kind and labels of every sample's name."""
    known: dict[str, tuple[str, Labels]] = {}
    for definition in (*GATEWAY_DEFINITIONS, *STAGE_DEFINITIONS, *STATUS_DEFINITIONS):
        labels = frozenset(definition.labels)
        if not definition.name.startswith("lorikeet_gateway_"):
            labels |= {_SERVER}
        if definition.kind == "histogram":
            known |= {definition.name + suffix: ("counter", labels | {"le"}) for suffix in _OF_HISTOGRAM}
        else:
            known[definition.name] = (definition.kind, labels)
    # Triton's own, as its documentation lists them
    gpu = ("nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes", "nv_gpu_utilization")
    return known | {name: ("gauge", frozenset({"gpu_uuid", _SERVER})) for name in gpu}


KNOWN = _known()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "lorikeet.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _queries() -> Iterator[tuple[str, str, str]]:
    """Title of the panel, query and legend."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


QUERIES = list(_queries())


def _check(query: str) -> Labels:
    """Raises AssertionError or ValueError for a query that finds nothing. Returns the labels that it groups by."""
    tree = promql_parser.parse(query.replace("$__rate_interval", "5m"))
    selectors: list[promql_parser.VectorSelector] = []
    rated: list[str | None] = []
    grouped: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            rated.append(node.vector_selector.name)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            grouped.update(node.modifier.labels)
        return True

    promql_parser.walk(tree, visit)
    for selector in selectors:
        assert selector.name in KNOWN, f"no metric {selector.name}"
        kind, labels = KNOWN[selector.name]
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= labels, f"{selector.name} has no labels {used - labels}"
        assert grouped <= labels, f"{selector.name} has no labels {grouped - labels}"
        assert (kind == "counter") == (selector.name in rated), f"{selector.name} is a {kind}"
    return frozenset(grouped)


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES)
def test_a_query_finds_metrics_and_labels_that_exist(title: str, query: str, legend: str) -> None:
    grouped = _check(query)
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == grouped - {"le"}, title


@pytest.mark.parametrize(
    "query",
    [
        "sum(lorikeet_no_such_metric)",
        "sum by (colour) (lorikeet_weights_bytes)",
        'lorikeet_weights_bytes{colour="red"}',
        "sum(lorikeet_steps_total)",
        "rate(lorikeet_weights_bytes[5m])",
        "sum(rate(lorikeet_steps_total[5m])",
    ],
)
def test_a_wrong_query_is_found(query: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        _check(query)


def test_the_panels_that_the_operator_needs_are_there() -> None:
    used = {name for name in KNOWN if any(re.search(rf"\b{name}\b", query) for _, query, _ in QUERIES)}
    assert used >= {
        "lorikeet_gateway_queue_requests",
        "lorikeet_gateway_wait_seconds_bucket",
        "lorikeet_gateway_requests_ended_total",
        "lorikeet_gateway_steps_per_second_bucket",
        "lorikeet_stage_seconds_bucket",
        "lorikeet_weights_bytes",
        "nv_gpu_memory_used_bytes",
    }


def test_grafana_can_lay_the_panels_out() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) == 23
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_data_source_is_a_choice_of_the_user() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", _SERVER}
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {"${datasource}"}
    assert DASHBOARD["schemaVersion"] == 39  # Grafana 11.0; later releases upgrade it when they load it
