"""Weight sets: what one request's network is, as data.

A weight set names a base (a component of a checkpoint) and says how it differs: tensors that are replaced, changes that
are added. What an engine binds is always computed from the base, W + sum(change(W)), never added to or subtracted from
what was bound before: nothing of one set can be left in the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from runtime.changes import Change, LowRank
from runtime.checkpoints.checkpoint import Component
from runtime.files.store import check_unchanged


@dataclass(frozen=True)
class WeightSet:
    """A base component and its changes; `digest` names the result, equal for equal weights from equal files.

    `full` holds parameters that are replaced; each mapping of `added`, what is added to some. A change may be read from
    its file only when it is asked for. `mapped`: the files that changes are mapped from, and the stamp of each.
    """

    base: Component
    changes: str = ""
    full: Mapping[str, torch.Tensor] = field(default_factory=dict)
    added: Sequence[Mapping[str, Change]] = ()
    mapped: Mapping[Path, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.base.digest}:{self.changes}".encode()).hexdigest()

    @property
    def changed(self) -> set[str]:
        """The names of the parameters that differ from the base."""
        return set(self.full).union(*self.added)

    def merged(self, name: str, base: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """A changed parameter, float32: its full replacement or its base, and what is added to that.

        It lies in `out` (float32, contiguous, of its shape), which may be faster than new memory. Every change is a
        function of the same start, those of low rank first: none sees what another one added.

        Raises FileChangedError where a change's file is no longer the one that `digest` speaks of, and what a change
        that cannot be read raises.
        """
        start = self.full.get(name, base)
        weight = torch.empty(start.shape, dtype=torch.float32, device=base.device) if out is None else out
        weight.copy_(start)
        changes = [added[name] for added in self.added if name in added]
        for change in changes:
            if isinstance(change, LowRank):
                change.add_to(weight)
        if deltas := [change for change in changes if not isinstance(change, LowRank)]:
            start = start.to(base.device, torch.float32)
            for change in deltas:
                weight.add_(change.delta(start))
        for path, stamp in self.mapped.items():
            check_unchanged(path, stamp)
        return weight


def base_tensors(component: Component) -> Iterator[tuple[str, torch.Tensor]]:
    """(canonical name, tensor) of a component's files; mapped from the file, not copied.

    Raises FileChangedError at the end of a file that is no longer the one that its digest speaks of.
    """
    for weight_file in component.files:
        with safe_open(weight_file.path, framework="pt") as file:
            names = list(file.keys())
            find = component.views(names)
            for name in names:
                if views := find(name):
                    stored = file.get_tensor(name)
                    yield from ((view.name, view.of(stored)) for view in views)
        check_unchanged(weight_file.path, weight_file.stamp)
