"""The README's table is made of nothing but the result files."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.results import Figure, Outcome, write_result
from benchmarks.table import benchmarks_table

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "memory_gib": 24.0,
    "versions": {"torch": "2.13.0", "diffusers": "0.42.1"},
    "commit": "abc",
    "date": "2031-02-03T04:05:06+00:00",
}
SETTINGS = {"triton": "2.51.0"}


def write(folder: Path, case: str, *figures: Figure, **raw: object) -> None:
    write_result(folder, case, CASES[case], Outcome(list(figures), raw, SETTINGS), MACHINE)


def test_a_row_for_each_figure_with_its_limit_and_whether_it_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "lora", Figure("slow", 0.31, at_most=0.25), Figure("quick", 0.0412, "s", at_most=0.1))
    write(tmp_path, "end_to_end", Figure("whole", 1.0, at_most=1.05), Figure("seconds", 12.345, "s"))
    rows = [line for line in benchmarks_table(tmp_path).splitlines() if line.startswith("| ")]
    assert rows == [
        "| | figure | limit | |",
        "| SD 1.5, 256 px, 8 steps: whole | 1 | at most 1.05 | ✓ |",
        "| SD 1.5, 256 px, 8 steps: seconds | 12.35 s |  |  |",
        "| A LoRA of rank 16, file on local disk: slow | 0.31 | at most 0.25 | ✗ |",
        "| A LoRA of rank 16, file on local disk: quick | 0.041 s | at most 0.1 s | ✓ |",
    ]


def test_a_row_for_each_concurrency_with_both_protocols(tmp_path: Path) -> None:
    level = {"p50_seconds": 0.5, "p95_seconds": 0.75}
    levels = [
        {"protocol": protocol, "concurrency": concurrency, "per_second": rate, **level}
        for concurrency, protocol, rate in ((8, "http", 4.0), (1, "grpc", 1.0), (1, "http", 2.0), (8, "grpc", 3.0))
    ]
    write(tmp_path, "perf", Figure("one of many", 1.0, "/s"), levels=levels)
    table = benchmarks_table(tmp_path)
    assert "| 1 | 1.00 | 0.50 s, 0.75 s | 2.00 | 0.50 s, 0.75 s |\n| 8 | 3.00 |" in table
    assert "one of many" not in table


def test_the_machine_is_told_once(tmp_path: Path) -> None:
    write(tmp_path, "end_to_end", Figure("whole", 1.0))
    write(tmp_path, "sdxl", Figure("memory", 9.0, "GiB"))
    said = "A processor, 2 cores, 24 GiB; torch 2.13.0, diffusers 0.42.1, Triton 2.51.0; commit abc; 2031-02-03."
    assert benchmarks_table(tmp_path).endswith(f"\n{said}\n")
    assert benchmarks_table(tmp_path).count("A processor") == 1


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert "`make bench`" in benchmarks_table(tmp_path)
