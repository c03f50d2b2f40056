"""Reads the parameters of a component from its files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from safetensors import safe_open

from runtime.checkpoints.checkpoint import Component
from runtime.files.store import check_unchanged


def read_base(
    component: Component, names: Collection[str], check_cancelled: Callable[[], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """(canonical name, tensor) of those of the component's parameters, in the order of its files.

    Raises FileChangedError at the end of a file that is no longer the one that its digest names, and what
    `check_cancelled` raises, which is called before every tensor.
    """
    for weight_file in component.files:
        if not names:
            return
        with safe_open(weight_file.path, framework="pt") as file:
            stored_names = list(file.keys())
            find = component.views(stored_names)
            for stored_name in stored_names:
                views = [view for view in find(stored_name) if view.name in names]
                if views:
                    check_cancelled()
                    stored = file.get_tensor(stored_name)
                    yield from ((view.name, view.of(stored)) for view in views)
        check_unchanged(weight_file.path, weight_file.stamp)
