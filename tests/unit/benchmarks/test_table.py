"""The README's table contains what the result files contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import CASES
from benchmarks.results import RESULTS, Figure, Outcome, read_result, write_result
from benchmarks.table import MixedMachines, benchmarks_table

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "memory_gib": 24.0,
    "versions": {"torch": "2.13.0", "diffusers": "0.42.1"},
    "commit": "abc",
    "date": "2031-02-03T04:05:06+00:00",
}
SETTINGS = {"triton": "2.51.0", "pixels": 128, "steps": 4}


def write(
    folder: Path,
    case: str,
    *figures: Figure,
    kind: str = "float32",
    machine: dict[str, object] | None = None,
    **raw: object,
) -> None:
    write_result(folder / kind, case, CASES[case], Outcome(list(figures), raw, SETTINGS), MACHINE | (machine or {}))


def test_a_row_for_each_figure_with_its_limit_and_its_case(tmp_path: Path) -> None:
    write(tmp_path, "lora", Figure("slow", 0.31, at_most=0.25), Figure("quick", 0.0412, "s", at_most=0.1))
    write(tmp_path, "end_to_end", Figure("whole", 1.0, at_most=1.05), Figure("seconds", 12.345, "s"))
    rows = [line for line in benchmarks_table(tmp_path).splitlines() if line.startswith("| ")]
    assert rows == [
        "| measurement | figure | limit | met | `make bench CASES=...` |",
        "| whole | 1 | at most 1.05 | ✓ | `end_to_end` |",
        "| seconds | 12.35 s |  |  | `end_to_end` |",
        "| slow | 0.31 | at most 0.25 | ✗ | `lora` |",
        "| quick | 0.041 s | at most 0.1 s | ✓ | `lora` |",
    ]


def test_a_figure_can_have_a_limit_from_below(tmp_path: Path) -> None:
    write(tmp_path, "openvino", Figure("enough", 0.94, at_least=0.93), Figure("too little", 0.9, at_least=0.93))
    table = benchmarks_table(tmp_path)
    assert "| enough | 0.94 | at least 0.93 | ✓ | `openvino` |" in table
    assert "| too little | 0.9 | at least 0.93 | ✗ | `openvino` |" in table


def test_a_case_that_starts_no_server_is_on_the_machine_of_the_others(tmp_path: Path) -> None:
    outcome = Outcome([Figure("call", 1.0)], {}, {"pixels": 512})
    write_result(tmp_path / "float32", "engines", CASES["engines"], outcome, MACHINE)
    write(tmp_path, "lora", Figure("added", 1.0))
    assert benchmarks_table(tmp_path).count("Triton 2.51.0") == 1


def test_a_row_for_each_concurrency_with_both_protocols(tmp_path: Path) -> None:
    level = {"p50_seconds": 0.5, "p95_seconds": 0.75}
    levels = [
        {"protocol": protocol, "concurrency": concurrency, "per_second": rate, **level}
        for concurrency, protocol, rate in ((8, "http", 4.0), (1, "grpc", 1.0), (1, "http", 2.0), (8, "grpc", 3.0))
    ]
    write(tmp_path, "perf", Figure("one of many", 1.0, "/s"), Figure("ratio", 0.9, at_most=1.0), levels=levels)
    table = benchmarks_table(tmp_path)
    assert (
        "| 1 concurrent request | 1.00 | 0.50 s, 0.75 s | 2.00 | 0.50 s, 0.75 s |\n| 8 concurrent requests |" in table
    )
    assert "perf_analyzer, demo model, 128 px, 4 steps" in table
    assert "one of many" not in table
    assert "| ratio | 0.9 | at most 1 | ✓ | `perf` |" in table


def test_one_line_names_the_machine_and_all_commits_and_dates(tmp_path: Path) -> None:
    write(tmp_path, "end_to_end", Figure("whole", 1.0))
    write(tmp_path, "lora", Figure("added", 1.0))
    write(tmp_path, "sdxl", Figure("memory", 9.0), machine={"commit": "def", "date": "2031-02-01T00:00:00+00:00"})
    line = "A processor, 2 cores, 24 GiB; torch 2.13.0, diffusers 0.42.1, Triton 2.51.0; commits abc, def; "
    table = benchmarks_table(tmp_path)
    assert table.startswith(f"**float32**: {line}2031-02-01 to 2031-02-03.\n")
    assert table.count("A processor") == 1


def test_results_of_two_machines_make_no_table(tmp_path: Path) -> None:
    write(tmp_path, "end_to_end", Figure("whole", 1.0))
    write(tmp_path, "sdxl", Figure("memory", 9.0, "GiB"), machine={"cpu": "Another processor"})
    with pytest.raises(MixedMachines, match=r"Another processor.*: sdxl\n"):
        benchmarks_table(tmp_path)


def test_each_kind_of_processor_has_its_own_tables(tmp_path: Path) -> None:
    write(tmp_path, "lora", Figure("added", 1.0))
    write(tmp_path, "lora", Figure("added", 2.0), kind="bfloat16", machine={"cpu": "Another processor"})
    lines = [line for line in benchmarks_table(tmp_path).splitlines() if line.startswith(("**", "| added"))]
    assert [line.partition(",")[0] for line in lines] == [
        "**bfloat16**: Another processor",
        "| added | 2 |  |  | `lora` |",
        "**float32**: A processor",
        "| added | 1 |  |  | `lora` |",
    ]


def test_without_results_the_table_names_the_command(tmp_path: Path) -> None:
    assert "`make bench`" in benchmarks_table(tmp_path)


def test_every_committed_result_is_of_a_case_with_its_description() -> None:
    for path in RESULTS.glob("*/*.json"):
        result = read_result(path)
        assert (result["case"], result["description"]) == (path.stem, CASES[path.stem])
