"""The status stream misses no change, whenever it comes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lorikeet.gateway.execution.log_lines import log_line
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.queue.board import Board
from lorikeet.gateway.queue.record import Record
from lorikeet.gateway.routes import queue
from lorikeet.gateway.services import Services

DONE = Outcome(200, {}, "attempt")
POLL_SECONDS = 0.02
SOON = 5.0


class Stream:
    """The status stream of one request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(queue, "_POSITION_SECONDS", POLL_SECONDS)
        self.board = Board()
        self.record = self.add("one")
        services = SimpleNamespace(settings=SimpleNamespace(base_url=""), queue=SimpleNamespace(board=self.board))
        self._states = queue._states(cast(Services, services), self.record, with_logs=True)

    def add(self, request_id: str, rank: int = 2) -> Record:
        return self.board.add(Record(request_id, "key", "fal-ai/lora", float(rank), "digest", rank))

    async def next(self) -> dict[str, Any]:
        """The next event, which comes soon."""
        found = await asyncio.wait_for(anext(self._states), SOON)
        assert found is not None, "nothing but a comment came"
        return found


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    return Stream(monkeypatch)


async def test_what_changes_while_a_slow_client_takes_its_event_comes_next(stream: Stream) -> None:
    assert (await stream.next())["status"] == "IN_QUEUE"
    stream.record.start(1.0)
    assert (await stream.next())["status"] == "IN_PROGRESS"
    stream.record.add_log(log_line("denoiser"))
    stream.record.end(DONE)
    ended = await stream.next()
    assert (ended["status"], [line["message"] for line in ended["logs"]]) == ("COMPLETED", ["denoiser"])


async def test_a_position_that_changes_while_a_slow_client_takes_its_event_comes_next(stream: Stream) -> None:
    other = stream.add("other", rank=1)
    assert (await stream.next())["queue_position"] == 1
    other.start(1.0)
    assert (await stream.next())["queue_position"] == 0


@pytest.mark.parametrize("turns", range(6))
async def test_what_changes_as_the_poll_of_the_position_ends_comes_next(stream: Stream, turns: int) -> None:
    await stream.next()
    event = asyncio.create_task(stream.next())
    await asyncio.sleep(POLL_SECONDS)
    for _ in range(turns):
        await asyncio.sleep(0)
    stream.record.end(DONE)
    assert (await event)["status"] == "COMPLETED"
