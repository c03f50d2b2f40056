"""What every case works with: models, questions, servers, and whom to tell how far it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.inputs import Questions
from benchmarks.models import Models
from benchmarks.server import Serving, serving

_MOST_LINES = 10


@dataclass(frozen=True)
class Bench:
    """`quick`: tiny models and few rounds, to see whether the harness works; its figures mean nothing."""

    quick: bool
    models: Models
    folder: Path
    tell: Callable[[str], None]
    questions: Questions = field(default_factory=Questions)

    @contextmanager
    def server(self, **settings: str) -> Iterator[Serving]:
        """A new server with these settings (LORIKEET_* in lower case)."""
        self.tell("starting a server")
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with serving(folder, self.models.folder, settings) as running:
            yield running

    def rounds(self, count: int, what: str = "round") -> Iterator[int]:
        """0 to count - 1, saying how long is left."""
        begun = time.monotonic()
        every = -(-count // _MOST_LINES)
        for number in range(count):
            if number % every == 0:
                seconds = time.monotonic() - begun
                left = f", about {_shown(seconds / number * (count - number))} left" if number else ""
                self.tell(f"{what} {number + 1} of {count}{left}")
            yield number


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
