"""Weight sets: data that defines the weights of one request's network.

A weight set names a base (a component of a checkpoint) and the sources of its changes. An engine always computes the
bound weights from the unchanged base: W + sum(change(W)). It never adds to, or subtracts from, weights that were
bound before, so no change of one set remains in the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from runtime.checkpoints.checkpoint import Component
from runtime.weights.change import Change, ChangeSource

Sources = Mapping[str, tuple[ChangeSource, ...]]


@dataclass(frozen=True, eq=False)
class WeightSet:
    """A base component and the sources of its changes, in the order of the request."""

    base: Component
    sources: tuple[ChangeSource, ...] = ()

    @property
    def digest(self) -> str:
        """Names the result: equal for equal weights from equal files."""
        changes = "+".join(source.digest for source in self.sources)
        return hashlib.sha256(f"{self.base.weights_digest}:{changes}".encode()).hexdigest()

    @cached_property
    def changed(self) -> Sources:
        """Parameter name -> the sources that change it, in the fastest order for reading."""
        found: dict[str, tuple[ChangeSource, ...]] = {}
        for source in self.sources:
            for name in source.names:
                found[name] = (*found.get(name, ()), source)
        return found

    @cached_property
    def low_rank(self) -> Sources:
        """The part of `changed` whose changes are all low-rank products. An engine may take these as inputs."""
        return {
            name: sources
            for name, sources in self.changed.items()
            if all(source.rank(name) is not None for source in sources)
        }

    @cached_property
    def full(self) -> Sources:
        """The part of `changed` that is not in `low_rank`. An engine must merge these parameters."""
        return {name: sources for name, sources in self.changed.items() if name not in self.low_rank}

    def read(self, name: str) -> list[Change]:
        """The changes of a parameter. Raises the errors of their sources."""
        return [source.read(name) for source in self.changed.get(name, ())]

    def check_unchanged(self) -> None:
        """Raises the source's error when its file has changed. Called after the last merge."""
        for source in self.sources:
            source.check_unchanged()
