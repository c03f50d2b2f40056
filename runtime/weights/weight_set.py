"""Weight sets: what one request's network is, as data.

A weight set names a base (a component of a checkpoint) and says how it differs: tensors that are replaced, changes that
are added. What an engine binds is always computed from the base, W + sum(change(W)), never added to or subtracted from
what was bound before: nothing of one set can be left in the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open

from runtime.checkpoints.checkpoint import Component
from runtime.files.store import check_unchanged
from runtime.weights.change import Change


@dataclass(frozen=True)
class WeightSet:
    """A base component and its changes; `digest` names the result, equal for equal weights from equal files.

    `full` holds parameters that are replaced; each mapping of `added`, what is added to some. A change may be read from
    its file only when it is asked for. `files`: those that changes are read from, and the stamp of each.
    """

    base: Component
    changes: str = ""
    full: Mapping[str, torch.Tensor] = field(default_factory=dict)
    added: Sequence[Mapping[str, Change]] = ()
    files: Mapping[Path, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.base.digest}:{self.changes}".encode()).hexdigest()

    @property
    def changed(self) -> KeysView[str]:
        """The names of the parameters that differ from the base, in the order in which they are best asked for."""
        return dict.fromkeys(chain(self.full, *self.added)).keys()

    def terms(self, name: str, base: torch.Tensor) -> tuple[torch.Tensor, list[Change]]:
        """What a parameter is the sum of: its full replacement or its base, and its changes, read from their files.

        Raises what a change that cannot be read raises."""
        return self.full.get(name, base), [added[name] for added in self.added if name in added]

    def check_files(self) -> None:
        """Raises FileChangedError where a change's file is no longer the one that `digest` speaks of. To be asked when
        all is merged."""
        for path, stamp in self.files.items():
            check_unchanged(path, stamp)


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
