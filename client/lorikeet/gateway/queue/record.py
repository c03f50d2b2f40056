"""A request of the queue in memory: its state, its log, and how it ended."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from lorikeet.gateway.execution.log_lines import LogLine
from lorikeet.gateway.execution.outcome import Outcome

State = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
IN_QUEUE: Final = "IN_QUEUE"
IN_PROGRESS: Final = "IN_PROGRESS"
COMPLETED: Final = "COMPLETED"


@dataclass(eq=False)
class Record:
    """`rank`: a smaller one starts first. Times are Unix seconds. `task` runs it in this gateway, if it does.

    `changes`: how often the record has changed. A reader passes what it has seen to `changed`, so that it misses none.
    """

    request_id: str
    key_id: str
    endpoint: str
    submitted_at: float
    digest: str
    rank: int
    start_deadline: float | None = None
    state: State = IN_QUEUE
    started_at: float | None = None
    logs: list[LogLine] = field(default_factory=list)
    outcome: Outcome | None = None
    ended_at: float | None = None
    task: asyncio.Task[Outcome] | None = None
    changes: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add_log(self, line: LogLine) -> None:
        self.logs.append(line)
        self.notify()

    def replace_logs(self, lines: list[LogLine]) -> None:
        if len(lines) > len(self.logs):
            self.logs = lines
            self.notify()

    def start(self, at: float) -> None:
        if self.state == IN_QUEUE:
            self.state, self.started_at = IN_PROGRESS, at
            self.notify()

    def end(self, outcome: Outcome) -> None:
        """The first end stands."""
        if self.outcome is None:
            self.state, self.outcome, self.ended_at = COMPLETED, outcome, time.time()
            self.logs = outcome.logs or self.logs
            self.notify()

    @property
    def place(self) -> tuple[int, float]:
        """Waiting requests start in the order of their places."""
        return self.rank, self.submitted_at

    @property
    def run_seconds(self) -> float | None:
        """From start to end; None for a request that has not started or not ended."""
        return self.ended_at - self.started_at if self.ended_at is not None and self.started_at is not None else None

    def notify(self) -> None:
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, seen: int, seconds: float) -> bool:
        """Wait until `changes` is not `seen`, at most `seconds`. Returns whether it is not."""
        if self.changes == seen:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        return self.changes != seen
