"""Asks: the rows that a job needs, each computed by an engine with bound weights."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from runtime.engines.engine import Binding, Engine, Inputs


@dataclass(frozen=True, eq=False)
class Bound:
    """An engine and the binding of one job's weights.

    `block_rows`: rows in each of its calls. It follows from the job's own request alone, because it changes a row's
    float32 result by 1e-6. The row's place and neighbours in the block do not change the result.
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
