"""`python -m benchmarks [CASE ...]` (`make bench`): measure, write `results/<case>.json` and the README's table."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.cases import CASES, run_case
from benchmarks.machine import DirtyTree, describe_machine, require_commit
from benchmarks.models import Models
from benchmarks.results import Outcome, is_measured, results_here, write_result
from benchmarks.table import MixedMachines, limit_text, number, write_table
from runtime.cpu import PROCESS_ENVIRONMENT
from runtime.settings import tools_folder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
console = Console(highlight=False, soft_wrap=True)

_HELP = """Measure the server. All cases take several hours on two idle cores, and over 14 GB of disk for the models.

Each case writes its result when it ends. After an interruption, the command without a case continues with the first
case that has no result of this commit and machine. The models' files are kept in the tools folder.

\b
Cases:
"""


@app.command(help=_HELP + "\n".join(f"  {case}: {description}" for case, description in CASES.items()))
def main(
    cases: Annotated[
        list[str] | None,
        typer.Argument(help="Cases to measure, even if measured before. Default: all without a current result."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check the code of the cases on tiny models; results go to a new folder.")
    ] = False,
) -> None:
    if unknown := [case for case in cases or [] if case not in CASES]:
        raise typer.BadParameter(f"unknown case: {', '.join(unknown)}; expected {', '.join(CASES)}")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # an exit stops servers and child processes
    # diffusers' process gets what the server's get, and no import warnings appear between the progress lines.
    for name, value in (PROCESS_ENVIRONMENT | {"TRANSFORMERS_VERBOSITY": "error"}).items():
        os.environ.setdefault(name, value)
    try:
        if quick:
            _measure_all(cases or list(CASES), Path(tempfile.mkdtemp(prefix="lorikeet-quick-")), quick)
        else:
            _measure_all(cases or _unmeasured(), results_here(), quick)
            write_table()
    except (DirtyTree, MixedMachines) as error:
        sys.exit(f"lorikeet: {error}")


def _unmeasured() -> list[str]:
    """The cases without a result of this commit and machine. Raises DirtyTree."""
    machine = _machine(quick=False)
    left = [case for case in CASES if not is_measured(results_here() / f"{case}.json", machine)]
    for case in CASES:
        if case not in left:
            console.print(
                f"{case}: already measured at commit {machine['commit']} on this machine; name it to repeat it"
            )
    return left


def _measure_all(cases: list[str], results: Path, quick: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="lorikeet-bench-") as temporary:
        folder = Path(temporary)
        models = Models(folder / "models" if quick else tools_folder() / "full", quick, _print_progress)
        bench = Bench(quick, models, folder, results, _print_progress)
        for position, case in enumerate(cases, 1):
            machine = _machine(quick)
            console.print(f"{case} ({position} of {len(cases)}): {CASES[case]}", style="bold")
            begun = time.monotonic()
            outcome = run_case(case, bench)
            _print_figures(outcome)
            path = write_result(results, case, CASES[case], outcome, machine, allow_dirty=quick)
            _print_progress(f"wrote {path} after {time.monotonic() - begun:.0f} s")


def _machine(quick: bool) -> dict[str, Any]:
    """The machine's description. Raises DirtyTree unless `quick`: before the measurement, not after it."""
    machine = describe_machine()
    if not quick:
        require_commit(machine)
    return machine


def _print_figures(outcome: Outcome) -> None:
    for figure in outcome.figures:
        limit = f", {text}" if (text := limit_text(asdict(figure))) else ""
        style = "red" if figure.met is False else None
        console.print(f"  {figure.label}: {number(figure.value, figure.unit)}{limit}", style=style)


def _print_progress(line: str) -> None:
    console.print(f"  {line}", style="dim")


if __name__ == "__main__":
    app()
