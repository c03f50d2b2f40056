"""What the stage needs of the module that computes image prompts, which imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.plan import Plan
from runtime.stages.call import Array, Call

NONE = {"IP_KEYS": 4, "IP_VALUES": 4, "IP_BIAS": 2, "IP_TOKENS": 3}  # the stage's tensors and their numbers of axes


class PromptMaker(Protocol):
    """Makes the stage's tensors."""

    def make(self, plan: Plan, call: Call, check_cancelled: Callable[[], None]) -> dict[str, Array]: ...

    def close(self) -> None:
        """End what it has started."""
