"""Writes what the tests of clients showed to `clients/results.json`, from which `make readme` makes a table."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.gateway.features import FEATURES

RESULTS = Path(__file__).parent / "clients" / "results.json"
Ticks = dict[str, dict[str, bool]]  # feature -> client -> whether its test passed

_KEY = pytest.StashKey[Ticks]()


def read_ticks() -> Ticks:
    ticks: Ticks = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return ticks


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marker = item.get_closest_marker("feature")
    if marker is not None and (report.when == "call" or report.failed):
        client = item.callspec.params["client"].name  # type: ignore[attr-defined]
        found = item.session.stash.setdefault(_KEY, {})
        cells = found.setdefault(marker.args[0], {})
        cells[client] = report.passed and cells.get(client, True)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Replace the cells whose tests ran. The same results give the same file."""
    found = session.stash.get(_KEY, {})
    if found:
        RESULTS.write_text(json.dumps(_merged(read_ticks(), found), indent=2) + "\n", "utf-8")


def _merged(before: Ticks, found: Ticks) -> Ticks:
    merged: Ticks = {}
    for feature, clients in FEATURES.items():
        cells = before.get(feature, {}) | found.get(feature, {})
        merged[feature] = {client.name: cells[client.name] for client in clients if client.name in cells}
    return merged
