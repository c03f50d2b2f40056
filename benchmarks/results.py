"""A case's figures, and the JSON file that keeps them with their samples, settings and machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import require_commit
from runtime.cpu import has_bfloat16

RESULTS = Path(__file__).resolve().parent / "results"  # a folder for each kind of processor


@dataclass(frozen=True)
class Figure:
    """One number. `label` heads its row in the README, so it must be clear alone.

    `unit` is "", "s", "GiB", "MB", "%" or "/s". At most one limit is given."""

    label: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the value is within its limit; None without a limit."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most


@dataclass(frozen=True)
class Outcome:
    """What a case returns. `raw`: every sample behind the figures; `settings`: what the case ran with."""

    figures: list[Figure]
    raw: dict[str, Any]
    settings: dict[str, Any]


def results_here() -> Path:
    """The folder of results of processors like this one. It is named by the precision that a server takes on them."""
    return RESULTS / ("bfloat16" if has_bfloat16() else "float32")


def write_result(
    folder: Path, case: str, description: str, outcome: Outcome, machine: dict[str, Any], allow_dirty: bool = False
) -> Path:
    """Write `<case>.json` atomically; its path. Raises DirtyTree when `machine` names no exact commit."""
    if not allow_dirty:
        require_commit(machine)
    content = {
        "case": case,
        "description": description,
        "figures": [asdict(figure) | {"met": figure.met} for figure in outcome.figures],
        "machine": machine,
        "settings": outcome.settings,
        "raw": outcome.raw,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case}.json"
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.rename(path)
    return path


def read_result(path: Path) -> dict[str, Any]:
    """The content of a file that `write_result` wrote."""
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def is_measured(path: Path, machine: dict[str, Any]) -> bool:
    """Whether the file holds a result of this commit, measured on a machine of this kind with these versions."""
    if not path.exists():
        return False
    measured = read_result(path)["machine"]
    return all(measured[key] == machine[key] for key in ("cpu", "cores", "memory_gib", "versions", "commit"))
