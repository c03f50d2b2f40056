"""Runs several generators of asks side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import TypeVar

from runtime.engines.ask import Ask
from runtime.engines.engine import Outputs

Returned = TypeVar("Returned")
Asking = Generator[list[Ask], list[Outputs], Returned]


def together(parts: Sequence[Asking[Returned]]) -> Asking[list[Returned]]:
    """What the generators return, in their order. Their first lists of asks become one list, so do their second ones.

    When one of them raises, or this generator is closed, all are closed.
    """
    returned: dict[int, Returned] = {}
    asks: dict[int, list[Ask]] = {}

    def advance(place: int, answers: list[Outputs] | None) -> None:
        try:
            asks[place] = next(parts[place]) if answers is None else parts[place].send(answers)
        except StopIteration as end:
            returned[place] = end.value

    with ExitStack() as closing:
        for place, part in enumerate(parts):
            closing.callback(part.close)
            advance(place, None)
        while asks:
            answers = yield [ask for asked in asks.values() for ask in asked]
            asked, start = asks, 0
            asks = {}
            for place, its in asked.items():
                advance(place, list(answers[start : start + len(its)]))
                start += len(its)
            del answers  # they may be large, and the next ones take long
    return [returned[place] for place in range(len(parts))]
