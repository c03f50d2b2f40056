"""The README's generated parts are up to date, and each writer replaces its own part only."""

from __future__ import annotations

import pytest

from benchmarks.gpu.table import gpu_table
from benchmarks.table import benchmarks_table
from benchmarks.tensorrt.table import trt_full_table
from deploy.readme import README, metrics_table, replace_part, settings_table
from lorikeet.gateway.settings import PREFIX as GATEWAY_PREFIX
from lorikeet.gateway.settings import GatewaySettings
from runtime.settings import PREFIX, Settings
from tests.gateway.clients_table import clients_table
from tests.gateway.features import FEATURES
from tests.gateway.ticks import read_ticks

TEXT = "before\n<!-- one: written by x -->\nold\n<!-- /one -->\n<!-- two: written by y -->\nkept\n<!-- /two -->\n"


def test_only_the_named_part_is_replaced() -> None:
    assert replace_part(TEXT, "one", "new \\1\n") == TEXT.replace("old\n", "new \\1\n")


def test_a_part_without_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="/three"):
        replace_part(TEXT, "three", "new\n")


def test_the_settings_are_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "settings", settings_table(Settings, PREFIX)) == text, "run `make readme`"
    gateway = settings_table(GatewaySettings, GATEWAY_PREFIX)
    assert replace_part(text, "gateway settings", gateway) == text, "run `make readme`"


def test_the_metrics_are_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "metrics", metrics_table()) == text, "run `make readme`"


def test_the_table_of_clients_is_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "clients", clients_table(read_ticks())) == text, "run `make readme`"


def test_each_client_passed_its_tests() -> None:
    """As the last run of each test noted it."""
    expected = {feature: {client.name: True for client in clients} for feature, clients in FEATURES.items()}
    assert read_ticks() == expected, "run `make verify` with ARGS='tests/gateway'"


def test_the_measurements_are_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "benchmarks", benchmarks_table()) == text, "run `make readme`"


def test_the_measurements_on_a_gpu_are_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "gpu", gpu_table()) == text, "run `make readme`"


def test_the_table_of_plans_is_up_to_date() -> None:
    text = README.read_text("utf-8")
    assert replace_part(text, "trt-full", trt_full_table()) == text, "run `make readme`"
