"""Asks: the rows that a job wants to have computed, each by an engine with its weights bound."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from runtime.engines.engine import Binding, Engine, Inputs


@dataclass(frozen=True, eq=False)
class Bound:
    """An engine and the binding of one job's weights.

    `block_rows`: rows in each of its calls. It follows from the job's own request, since a row's result in float32
    depends on it (by 1e-6), though not on the row's place or neighbours in the block.
    """

    engine: Engine
    binding: Binding
    block_rows: int

    def release(self) -> None:
        self.binding.release()


@dataclass(frozen=True, eq=False)
class Ask:
    """One row for an engine."""

    bound: Bound
    inputs: Inputs

    @cached_property
    def batch_key(self) -> Hashable:
        """Asks with equal keys may share a call."""
        engine = self.bound.engine
        return engine, self.bound.block_rows, engine.batch_key(self.bound.binding, self.inputs)
