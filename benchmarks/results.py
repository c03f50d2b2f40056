"""A case's figures, and the file that keeps them with all that they were made from."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Figure:
    """One number. `what` is the README's wording; `unit` is "", "s", "GiB", "%" or "/s"."""

    what: str
    value: float
    unit: str = ""
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        return None if self.at_most is None else self.value <= self.at_most


@dataclass(frozen=True)
class Outcome:
    """What a case found. `raw`: every sample that the figures were made from; `settings`: what was run."""

    figures: list[Figure]
    raw: dict[str, Any]
    settings: dict[str, Any]


def write_result(folder: Path, case: str, title: str, outcome: Outcome, machine: dict[str, Any]) -> Path:
    """Write `<case>.json`; it appears complete or not at all."""
    content = {
        "case": case,
        "title": title,
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
