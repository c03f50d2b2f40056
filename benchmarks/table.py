"""The README's part on measurements, from the committed results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.results import RESULTS, read_result

_UNMEASURED = "Nothing was measured yet: `make bench` writes this part.\n"


def benchmarks_table(folder: Path = RESULTS) -> str:
    """Markdown: a row for each figure that was measured with its limit, perf_analyzer's levels, and the machine."""
    found = {path.stem: read_result(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        return _UNMEASURED
    parts = []
    if rows := [row for case in CASES if case in found and case != "perf" for row in _rows(found[case])]:
        parts.append("\n".join(["| | figure | limit | |", "|---|---|---|---|", *rows]) + "\n")
    if "perf" in found:
        parts.append(_levels(found["perf"]))
    parts.append(_machines(found.values()))
    return "\n".join(parts)


def _rows(result: dict[str, Any]) -> list[str]:
    return [_row(result["title"], figure) for figure in result["figures"]]


def _row(title: str, figure: dict[str, Any]) -> str:
    limit, met = figure["at_most"], {True: "✓", False: "✗", None: ""}[figure["met"]]
    said = "" if limit is None else f"at most {number(limit, figure['unit'])}"
    return f"| {title}: {figure['what']} | {number(figure['value'], figure['unit'])} | {said} | {met} |"


def _levels(result: dict[str, Any]) -> str:
    """perf_analyzer's figures: a row for each concurrency, a pair of columns for each protocol."""
    levels = {(level["concurrency"], level["protocol"]): level for level in result["raw"]["levels"]}
    lines = [
        f"| {result['title']}: at once | gRPC, requests/s | p50, p95 | HTTP, requests/s | p50, p95 |",
        "|---|---|---|---|---|",
    ]
    for concurrency in sorted({concurrency for concurrency, _ in levels}):
        cells = [_level(levels[concurrency, protocol]) for protocol in ("grpc", "http")]
        lines.append(f"| {concurrency} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _level(level: dict[str, Any]) -> str:
    return f"{level['per_second']:.2f} | {level['p50_seconds']:.2f} s, {level['p95_seconds']:.2f} s"


def number(value: float, unit: str) -> str:
    """Two digits behind the point; more where a number would be hidden, none where there are none."""
    digits = f"{value:.3f}" if abs(value) < 0.1 and value else f"{value:.2f}"
    digits = digits.rstrip("0").rstrip(".")
    return f"{digits} {unit}".strip() if unit != "%" else f"{digits} %"


def _machines(results: Iterable[dict[str, Any]]) -> str:
    """One line for each machine and commit that figures came from."""
    said: dict[str, str] = {}
    for result in results:
        machine = result["machine"]
        versions = machine["versions"]
        line = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; torch {versions['torch']}, "
            f"diffusers {versions['diffusers']}, Triton {result['settings']['triton']}; commit {machine['commit']}"
        )
        said.setdefault(line, machine["date"][:10])
    return "\n".join(f"{line}; {date}." for line, date in said.items()) + "\n"
