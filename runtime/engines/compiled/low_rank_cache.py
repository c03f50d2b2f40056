"""The low-rank parts of all engines of a process, within the stage's budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from runtime.engines.lru_budget import LruBudget, Resident

if TYPE_CHECKING:
    from runtime.engines.compiled.low_rank import LowRankPart


class LowRankCache:
    """One thread at a time uses a new part; any thread ends a use."""

    def __init__(self, budget: LruBudget[Resident]) -> None:
        self._budget = budget

    def need(self, key: str, nbytes: int) -> Mapping[str, int]:
        """For `LruBudget.make_room`, before the part `key` of `nbytes` is used."""
        return {_full(key): nbytes}

    def use(self, uses: ExitStack, key: str, make: Callable[[], LowRankPart]) -> LowRankPart:
        """The low-rank part `key`, in use until `uses` ends. Raises the errors of `make`."""
        part = self._budget.acquire(_full(key), make)
        uses.callback(self._budget.release, _full(key))
        return part  # type: ignore[return-value]  # a key always names items of one type


def _full(key: str) -> str:
    return f"low rank:{key}"
