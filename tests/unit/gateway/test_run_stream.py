"""The events of a run: its whole log before the last one, and nothing left behind when the client goes away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from lorikeet.gateway.execution.log_lines import LogLine, log_line
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.routes import run
from lorikeet.gateway.routes.run import RunningRequest


class Running:
    """A run that ends when the test says."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
        self.ended = asyncio.Event()
        as_running = cast(RunningRequest, SimpleNamespace(lines=self.lines, outcome=self._outcome))
        self.events = run._events(as_running)

    def add_lines(self, count: int) -> None:
        for number in range(count):
            self.lines.put_nowait(log_line(str(number)))

    async def _outcome(self) -> Outcome:
        await self.ended.wait()
        return Outcome(200, {"seed": 7}, "attempt")


async def test_lines_of_the_last_moment_come_before_the_output() -> None:
    running = Running()
    running.add_lines(150)
    running.ended.set()
    *events, last = [event async for event in running.events]
    assert [event and event["logs"][0]["message"] for event in events] == [str(number) for number in range(150)]
    assert last == {"seed": 7}


async def test_a_comment_comes_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_KEEP_ALIVE_SECONDS", 0.01)
    running = Running()
    assert [await anext(running.events) for _ in range(3)] == [None] * 3
    running.add_lines(1)
    running.ended.set()
    events = [event async for event in running.events if event is not None]
    assert len(events) == 2 and events[0]["logs"][0]["message"] == "0"


async def test_a_client_that_goes_away_leaves_no_task() -> None:
    running = Running()
    event = asyncio.ensure_future(anext(running.events))
    await asyncio.sleep(0.01)
    event.cancel()
    await asyncio.gather(event, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
