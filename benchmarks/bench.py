"""What each case receives: models, request inputs, servers, and a function that prints progress."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.models import Models
from benchmarks.running_server import RunningServer, running_server
from benchmarks.unique_requests import UniqueRequests

_MAX_PROGRESS_LINES = 10


@dataclass(frozen=True)
class Bench:
    """`quick`: tiny models and few rounds, which check the code of a case; its figures have no meaning.

    `folder`: for the files of this run. `results`: the results of the cases."""

    quick: bool
    models: Models
    folder: Path
    results: Path
    progress: Callable[[str], None]
    requests: UniqueRequests = field(default_factory=UniqueRequests)

    @contextmanager
    def server(self, **settings: str) -> Iterator[RunningServer]:
        """Start a server with these settings (LORIKEET_* without the prefix, in lower case); stop it at the end."""
        self.progress("starting a server")
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with running_server(folder, self.models.folder, settings) as server:
            yield server

    def rounds(self, count: int, what: str = "round") -> Iterator[int]:
        """Yield 0 to count - 1, and print the estimated time left."""
        begun = time.monotonic()
        every = -(-count // _MAX_PROGRESS_LINES)
        for number in range(count):
            if number % every == 0:
                seconds = time.monotonic() - begun
                left = f", about {_duration(seconds / number * (count - number))} left" if number else ""
                self.progress(f"{what} {number + 1} of {count}{left}")
            yield number


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
