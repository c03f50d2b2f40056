"""The progress line of an export, and its output."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console(highlight=False, soft_wrap=True)
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


Show = Callable[[str], None]


@contextmanager
def progress_of(names: Collection[str]) -> Iterator[Iterator[tuple[str, Show]]]:
    """A progress line for the names, to be taken in turn. Each comes with what shows the phase of its work.

    Warnings of the runtime, such as TensorRT's, are not logged meanwhile: they would stand between the lines.
    """
    with _errors_only(logging.getLogger("lorikeet")), Progress(*_COLUMNS, console=console, transient=True) as progress:
        yield _steps(progress, names)


@contextmanager
def _errors_only(log: logging.Logger) -> Iterator[None]:
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _steps(progress: Progress, names: Collection[str]) -> Iterator[tuple[str, Show]]:
    task = progress.add_task("export", total=len(names))
    for name in names:

        def show(phase: str, name: str = name) -> None:
            progress.update(task, description=f"{name}: {phase}")

        yield name, show
        progress.advance(task)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._begun:.1f} s"
