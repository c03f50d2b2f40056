"""`python -m benchmarks.table` (`make readme`): write the README's measurements from the files in `results/`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.results import RESULTS, read_result
from deploy.readme import write_part

_UNMEASURED = "`benchmarks/results/` has no results: `make bench` measures them and writes this table.\n"
_THROUGHPUT = "perf"
_Results = Mapping[str, dict[str, Any]]  # by case, in the order of CASES


class MixedMachines(ValueError):
    """The results of one kind of processor come from different machines or library versions."""


def write_table() -> None:
    """Write the README's generated part. Raises MixedMachines."""
    write_part("benchmarks", benchmarks_table())


def benchmarks_table(folder: Path = RESULTS) -> str:
    """Markdown: for each kind of processor its own tables. Raises MixedMachines."""
    return "\n".join(_of_processor(kind) for kind in sorted(folder.iterdir()) if kind.is_dir()) or _UNMEASURED


def _of_processor(folder: Path) -> str:
    """The machine, one row for each figure, and perf_analyzer's levels.

    Of perf_analyzer's figures, only those with a limit have a row: its own table has the others.
    """
    paths = {case: folder / f"{case}.json" for case in CASES}
    results = {case: read_result(path) for case, path in paths.items() if path.exists()}
    parts = [f"**{folder.name}**: {_machine_line(results)}"]
    if rows := [row for case in results for row in _figure_rows(case, results[case])]:
        header = "| measurement | figure | limit | met | `make bench CASES=...` |\n|---|---|---|---|---|"
        parts.append("\n".join([header, *rows]) + "\n")
    if _THROUGHPUT in results:
        parts.append(_throughput_table(results[_THROUGHPUT]))
    return "\n".join(parts)


def _figure_rows(case: str, result: dict[str, Any]) -> list[str]:
    rows = []
    for figure in result["figures"]:
        limit = limit_text(figure)
        if case == _THROUGHPUT and not limit:
            continue
        met = {True: "✓", False: "✗", None: ""}[figure["met"]]
        cells = [figure["label"], number(figure["value"], figure["unit"]), limit, met, f"`{case}`"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _throughput_table(result: dict[str, Any]) -> str:
    """perf_analyzer's figures: one row for each concurrency, a pair of columns for each protocol."""
    levels = {(level["concurrency"], level["protocol"]): level for level in result["raw"]["levels"]}
    pixels, steps = result["settings"]["pixels"], result["settings"]["steps"]
    lines = [
        f"`make bench CASES={_THROUGHPUT}`: perf_analyzer, demo model, {pixels} px, {steps} steps.\n",
        "| load | gRPC: requests/s | gRPC: p50, p95 latency | HTTP: requests/s | HTTP: p50, p95 latency |",
        "|---|---|---|---|---|",
    ]
    for concurrency in sorted({concurrency for concurrency, _ in levels}):
        cells = [_level(levels[concurrency, protocol]) for protocol in ("grpc", "http")]
        load = f"{concurrency} concurrent {'request' if concurrency == 1 else 'requests'}"
        lines.append(f"| {load} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _level(level: dict[str, Any]) -> str:
    return f"{level['per_second']:.2f} | {level['p50_seconds']:.2f} s, {level['p95_seconds']:.2f} s"


def limit_text(figure: dict[str, Any]) -> str:
    """The limit of a figure of `results/`, such as "at most 1.05"; "" without one. Older files know no `at_least`."""
    for key, words in (("at_most", "at most"), ("at_least", "at least")):
        if figure.get(key) is not None:
            return f"{words} {number(figure[key], figure['unit'])}"
    return ""


def number(value: float, unit: str) -> str:
    """The value with two decimals and its unit: three decimals below 0.1, no trailing zeros."""
    digits = f"{value:.3f}" if abs(value) < 0.1 and value else f"{value:.2f}"
    return f"{digits.rstrip('0').rstrip('.')} {unit}".rstrip()


def _machine_line(results: _Results) -> str:
    """The machine and versions of all results, with their commits and dates. Raises MixedMachines."""
    cases: dict[str, list[str]] = {}
    triton = _triton(results)
    for case, result in results.items():
        cases.setdefault(_kind(result, triton), []).append(case)
    if len(cases) > 1:
        found = "".join(f"\n  {kind}: {' '.join(names)}" for kind, names in cases.items())
        raise MixedMachines(
            f"the results are of several machines or library versions:{found}\n"
            'README.md was not written. Measure all cases on one machine of a kind: make bench CASES="..."'
        )
    (kind,) = cases
    commits = list(dict.fromkeys(result["machine"]["commit"] for result in results.values()))
    dates = sorted({result["machine"]["date"][:10] for result in results.values()})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{kind}; {'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}; {days}.\n"


def _triton(results: _Results) -> str:
    """The version of Triton for cases that start no server: that of the others."""
    versions = (result["settings"].get("triton") for result in results.values())
    return next((version for version in versions if version), "not started")


def _kind(result: dict[str, Any], triton: str) -> str:
    machine = result["machine"]
    versions = machine["versions"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; torch {versions['torch']}, "
        f"diffusers {versions['diffusers']}, Triton {result['settings'].get('triton', triton)}"
    )


if __name__ == "__main__":
    try:
        write_table()
    except MixedMachines as error:
        sys.exit(f"lorikeet: {error}")
