"""Batching: which rows share the next call, and whose rows go first."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from runtime.engines.ask import Ask
from runtime.stages.step_loop.member import Member
from runtime.stages.step_loop.round_robin import RoundRobin


@dataclass(frozen=True)
class OpenAsk:
    """An ask without an answer, the job that waits for it, and its place in the job's list."""

    member: Member
    place: int
    ask: Ask


class Batching:
    """Chooses the rows of each call. Keys take turns; within a key, the job that has waited longest goes first."""

    def __init__(self, calls_per_turn: int) -> None:
        """`calls_per_turn`: calls of one batch key before another key's turn; 0 means the engine's own number."""
        self._calls_per_turn = calls_per_turn
        self._turns: RoundRobin[Hashable] = RoundRobin()

    def clear(self) -> None:
        """Forget the last call, whose batch key refers to its weights."""
        self._turns.clear()

    def next(self, asks: Sequence[OpenAsk]) -> list[OpenAsk]:
        """The asks of the next call: of one batch key, and at most a block. Empty when there are none."""
        groups: dict[Hashable, list[OpenAsk]] = {}
        for item in sorted(asks, key=lambda item: item.member.last_call):
            groups.setdefault(item.ask.batch_key, []).append(item)
        if not groups:
            return []
        engines = {key: group[0].ask.bound.engine for key, group in groups.items()}
        turns = {key: self._calls_per_turn or engine.calls_per_turn for key, engine in engines.items()}
        group = groups[self._turns.next(turns)]
        return group[: group[0].ask.bound.block_rows]


def open_asks(member: Member) -> list[OpenAsk]:
    """The open asks of one job that the next call can answer."""
    return [OpenAsk(member, place, ask) for place, ask in member.next_asks()]


def answer(batch: Sequence[OpenAsk]) -> None:
    """Call the engine for a block of rows, filled up with copies of the last one, and keep the answers.

    Raises the engine's errors, and RuntimeError when the engine does not answer every row.
    """
    bound = batch[0].ask.bound
    rows = [(item.ask.bound.binding, item.ask.inputs) for item in batch]
    outputs = bound.engine.run(rows + [rows[-1]] * (bound.block_rows - len(rows)))
    if len(outputs) != bound.block_rows:
        raise RuntimeError(f"the engine answered {len(outputs)} of {bound.block_rows} rows")
    for item, output in zip(batch, outputs[: len(batch)], strict=True):
        item.member.answer(item.place, output)
