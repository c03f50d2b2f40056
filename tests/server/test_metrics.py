"""What an operator reads from both Prometheus ports and from `/health`, after a few requests."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from deploy.local_server import LocalServer
from lorikeet import Client, InvalidRequest
from runtime.jobs.job_table import STAGES
from runtime.metrics.definition import CODES, Definition
from runtime.metrics.stage_definitions import STAGE_DEFINITIONS
from runtime.supervisor.status_definitions import STATUS_DEFINITIONS
from tests.server.following import fields

_SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
PUBLISHED_SECONDS = 1.5  # the stages publish every second

Series = dict[tuple[str, frozenset[str]], float]


def _read(url: str) -> tuple[Series, dict[str, str]]:
    """The value of each series, by name and labels such as `stage="finish"`; the type of each metric."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found: Series = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = _SERIES.fullmatch(line)
            assert match, line
            labels = frozenset(re.findall(r'\w+="[^"]*"', match[2] or ""))
            found[match[1], labels] = float(match[3])
    return found, dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))


def _series(name: str, **labels: str) -> tuple[str, frozenset[str]]:
    return name, frozenset(f'{label}="{value}"' for label, value in labels.items())


def _names(definition: Definition) -> set[str]:
    if definition.kind != "histogram":
        return {definition.name}
    return {f"{definition.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")}


@pytest.fixture(scope="module")
def growth(server: LocalServer, client: Client, tiny: Path) -> tuple[Series, Series]:
    """By how much each series of the stages grew over four requests, and its value after them.

    A request without LoRAs, two with one LoRA, and one that `prepare` refuses.
    """
    time.sleep(PUBLISHED_SECONDS)
    before, _ = _read(server.metrics)
    request = fields(tiny, num_inference_steps=3, num_images=2, scheduler="DDIM")
    loras = {"loras": [{"path": str(tiny / "loras" / "sd15" / "peft.safetensors"), "scale": 0.731}]}
    for good in (request, request | loras, request | loras):
        client.image_to_image(good)
    with pytest.raises(InvalidRequest):
        client.image_to_image(request | {"loras": [{"path": str(tiny / "no_such_file.safetensors")}]})
    time.sleep(PUBLISHED_SECONDS)
    after, _ = _read(server.metrics)
    return {series: value - before.get(series, 0.0) for series, value in after.items()}, after


def test_every_metric_of_the_readme_is_there(server: LocalServer, growth: tuple[Series, Series]) -> None:
    for url, definitions in ((server.metrics, STAGE_DEFINITIONS), (server.status, STATUS_DEFINITIONS)):
        found, types = _read(url)
        ours = {name for name, _ in found if name.startswith("lorikeet_")}
        assert ours == set().union(*map(_names, definitions))
        assert {one.name: one.kind for one in definitions}.items() <= types.items()


def test_answers_are_counted_by_code(growth: tuple[Series, Series]) -> None:
    grown, _ = growth
    for stage in STAGES:
        answers = {code: grown[_series("lorikeet_answers_total", stage=stage, code=code)] for code in CODES}
        expected = dict.fromkeys(CODES, 0.0)
        if stage != "jobs":
            expected |= {"OK": 3, "INVALID_ARG": float(stage == "prepare")}
            assert answers == expected, stage


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "jobs"])
def test_the_seconds_of_each_stage_are_measured(growth: tuple[Series, Series], stage: str) -> None:
    grown, after = growth
    assert grown[_series("lorikeet_stage_seconds_count", stage=stage)] == 3
    assert grown[_series("lorikeet_stage_seconds_bucket", stage=stage, le="+Inf")] == 3
    assert grown[_series("lorikeet_stage_seconds_sum", stage=stage)] > 0
    assert after[_series("lorikeet_requests_waiting", stage=stage)] == 0
    assert after[_series("lorikeet_requests_running", stage=stage)] == 0


def test_steps_rows_and_calls_are_counted(growth: tuple[Series, Series]) -> None:
    """Three requests of three steps, of two pictures with guidance: four rows a step, in blocks of two."""
    grown, _ = growth
    assert grown[_series("lorikeet_steps_total", stage="denoiser")] == 9
    assert grown[_series("lorikeet_rows_total", stage="denoiser")] == 36
    assert grown[_series("lorikeet_engine_call_rows_count", stage="denoiser")] == 18
    assert grown[_series("lorikeet_engine_call_rows_sum", stage="denoiser")] == 36
    assert grown[_series("lorikeet_engine_call_rows_bucket", stage="denoiser", le="1")] == 0
    assert grown[_series("lorikeet_engine_call_seconds_total", stage="denoiser")] > 0
    assert grown[_series("lorikeet_request_seconds_count", stage="finish")] == 3


def test_weights_and_loras_are_counted(growth: tuple[Series, Series]) -> None:
    grown, after = growth
    assert grown[_series("lorikeet_lora_merges_total", stage="denoiser")] == 1
    assert grown[_series("lorikeet_lora_cache_hits_total", stage="denoiser")] == 1
    for stage in ("text_encoder", "denoiser", "vae_decoder"):
        assert after[_series("lorikeet_weights_bytes", stage=stage)] > 0
        assert after[_series("lorikeet_weights_loads_total", stage=stage)] >= 1
    assert grown[_series("lorikeet_weights_evictions_total", stage="denoiser")] == 0


def test_health_is_ok_and_counts_no_restart(server: LocalServer, growth: tuple[Series, Series]) -> None:
    with urllib.request.urlopen(f"{server.status}/health", timeout=10) as reply:
        health = json.load(reply)
    assert (reply.status, health["status"], health["sick"], health["restarts"]) == (200, "ok", None, 0)
    assert all(stage["ready"] and stage["heartbeat_age_seconds"] < 5 for stage in health["stages"].values())
    found, _ = _read(server.status)
    assert found[_series("lorikeet_up")] == 1
    assert found[_series("lorikeet_requests_in_flight")] == 0
    assert found[_series("lorikeet_restarts_total", reason="stage_ended")] == 0
