"""`python -m benchmarks [CASE ...]` (`make bench`): measures, and writes `results/<case>.json`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.cases import CASES, run_case
from benchmarks.machine import describe
from benchmarks.models import Models
from benchmarks.results import RESULTS, Outcome, write_result
from benchmarks.table import number
from runtime.settings import tools_folder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)


@app.command()
def main(
    cases: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(CASES)}; none: all.")] = None,
    quick: Annotated[bool, typer.Option(help="Tiny models, to check the harness; results go to a new folder.")] = False,
) -> None:
    """Measure the server. Takes one to two hours on two idle cores, and 12 GB of disk for the models."""
    chosen = cases or list(CASES)
    if unknown := [case for case in chosen if case not in CASES]:
        raise typer.BadParameter(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers and peers end too
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # the server does so for itself; the peers get the same
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # a peer's imports would be told amid the progress
    results = Path(tempfile.mkdtemp(prefix="lorikeet-quick-")) if quick else RESULTS
    with tempfile.TemporaryDirectory(prefix="lorikeet-bench-") as temporary:
        folder = Path(temporary)
        models = Models(folder / "models" if quick else tools_folder() / "full", quick, _tell)
        for position, case in enumerate(chosen, 1):
            _measure(case, f"{position} of {len(chosen)}", Bench(quick, models, folder, _tell), results)


def _measure(case: str, position: str, bench: Bench, results: Path) -> None:
    console.print(f"{case} ({position}): {CASES[case]}", style="bold")
    begun, machine = time.monotonic(), describe()
    outcome = run_case(case, bench)
    _show(outcome)
    path = write_result(results, case, CASES[case], outcome, machine)
    _tell(f"wrote {path} after {time.monotonic() - begun:.0f} s")


def _show(outcome: Outcome) -> None:
    for figure in outcome.figures:
        limit = "" if figure.at_most is None else f", at most {number(figure.at_most, figure.unit)}"
        style = "red" if figure.met is False else None
        console.print(f"  {figure.what}: {number(figure.value, figure.unit)}{limit}", style=style)


def _tell(line: str) -> None:
    console.print(f"  {line}", style="dim")


if __name__ == "__main__":
    app()
