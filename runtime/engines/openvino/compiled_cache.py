"""The compiled models and low-rank parts of all OpenVINO engines of a process, within the stage's budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.engines.compiled.low_rank_cache import LowRankCache
from runtime.engines.lru_budget import LruBudget, Resident

if TYPE_CHECKING:  # a server without graphs does not import openvino
    from runtime.engines.compiled.low_rank import LowRankPart
    from runtime.engines.openvino.compiled import Compiled

_MOST_OF_A_BASE = 3  # compiled models of one checkpoint's component; each holds a copy of its weights


@dataclass(frozen=True, eq=False)
class OpenVinoBinding:
    """A compiled model and the low-rank inputs of its calls, in use until released."""

    compiled: Compiled
    low_rank: LowRankPart
    release: Callable[[], None]
    has_fixed_sizes: bool

    @property
    def precision(self) -> str:
        return self.compiled.precision


class CompiledCache:
    """One thread at a time binds; any thread releases."""

    def __init__(self, budget: LruBudget[Resident]) -> None:
        self._budget = budget
        self.low_rank = LowRankCache(budget)

    def use_compiled(
        self,
        uses: ExitStack,
        base: str,
        key: str,
        make: Callable[[], Compiled],
        nbytes: int,
        check_cancelled: Callable[[], None],
        beside: Mapping[str, int] | None = None,
    ) -> Compiled:
        """The compiled model `key` of the base weights `base`, in use until `uses` ends.

        nbytes: an estimate of its memory. beside: bytes of further items of the budget, by key, which the caller
        acquires next; there is room for both. Raises the errors of `make` and of `check_cancelled`.
        """
        prefix = f"compiled:{base}:"
        if prefix + key not in self._budget:
            self._budget.make_place(prefix, _MOST_OF_A_BASE - 1, check_cancelled)
        self._budget.make_room({prefix + key: nbytes, **(beside or {})}, check_cancelled)
        compiled = self._budget.acquire(prefix + key, make)
        uses.callback(self._budget.release, prefix + key)
        return compiled  # type: ignore[return-value]  # a key always names items of one type
