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

from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_file import SafetensorsFile, read_header
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
    """(canonical name, tensor) of a component's files, read one tensor after the other in the order of each file.

    Parameters that are views of one stored tensor share its memory. Raises WeightFileError and FileChangedError.
    """
    for weight_file in component.files:
        stored_names = read_header(weight_file.path).tensors.keys()
        find = component.views(stored_names)
        views = {name: found for name in stored_names if (found := find(name))}
        file = SafetensorsFile(weight_file.path, weight_file.stamp, views)
        for name in file.names:
            stored = file.read(name)
            yield from ((view.name, view.of(stored)) for view in views[name])
