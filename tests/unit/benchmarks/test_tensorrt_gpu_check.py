"""The GPU check writes its result after each step, ends at its time limit, and builds the slowest plans last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.models import GpuModels
from benchmarks.tensorrt import gpu_check
from benchmarks.tensorrt.gpu_check import CheckpointCheck, Steps, add_steps
from runtime.engines.tensorrt import flavour


class Clock:
    """Stands for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(gpu_check, "time", found)
    return found


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def read(result: Path) -> Any:
    return json.loads(result.read_text("utf-8"))


def takes(clock: Clock, seconds: float) -> Callable[[], str]:
    def work() -> str:
        clock.now += seconds
        return "a value"

    return work


def test_the_result_is_written_after_each_step(clock: Clock, result: Path) -> None:
    """A killed run leaves the steps before, and names the one that ran."""
    steps = Steps(result, {"torch": "2.0"}, 480)
    steps.add("first", takes(clock, 5))
    assert read(result) == {"torch": "2.0", "steps": {"first": "a value"}, "seconds": {"first": 5}, "left out": {}}

    def kill() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.add("second", kill)
    assert read(result)["steps"] == {"first": "a value", "second": "begun, and not ended"}


def test_no_step_begins_after_the_deadline(clock: Clock, result: Path) -> None:
    steps = Steps(result, {}, 480)
    for name in ("first", "second", "third"):
        steps.add(name, takes(clock, 300))
    assert list(read(result)["steps"]) == ["first", "second"]
    assert read(result)["left out"] == {"third": "no time left"}


def test_an_error_ends_its_step_and_what_needs_it(clock: Clock, result: Path) -> None:
    def fail() -> None:
        raise ValueError("no plan")

    steps = Steps(result, {}, 480)
    steps.add("plan", fail)
    steps.add("engine", takes(clock, 1), "plan")
    steps.add("other", takes(clock, 1))
    assert read(result)["steps"] == {"plan": "failed: ValueError: no plan", "other": "a value"}
    assert read(result)["left out"] == {"engine": "it needs: plan"}


def test_the_slowest_plans_are_built_last(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks, UNets without low-rank inputs, then all with them. The deadline leaves out all."""
    monkeypatch.setattr(flavour, "IS_RTX", True)
    steps = Steps(result, {}, 0)
    add_steps([CheckpointCheck(steps, GpuModels(tmp_path), name, tmp_path) for name in ("sd15", "sdxl")])
    found = read(result)
    assert not found["steps"]
    names = list(found["left out"])
    assert names[0] == "sd15 text encoder 1, low-rank inputs none"
    assert "sd15 unet, low-rank inputs none: plan from placeholders" in names
    phases = [2 if "linear" in name else int("unet" in name) for name in names]
    assert phases == sorted(phases) and set(phases) == {0, 1, 2}
    encoders = [name for name in names if "text encoder" in name]
    assert len(encoders) == 6
    assert names.index(encoders[-1]) < names.index("sd15 unet, low-rank inputs linear: plan")
