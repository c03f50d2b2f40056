"""Reads the parameters of a component from its files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch

from runtime.checkpoints.checkpoint import Component, Role
from runtime.files.safetensors_file import SafetensorsFile, read_header

# Networks of which every number acts on the result. A checkpoint is not checked: it works while no prompt uses a token
# whose vector is NaN.
_FINITE: tuple[Role, ...] = ("controlnet", "image_encoder", "image_projection", "safety_checker")


def read_base(
    component: Component, names: Collection[str], check_cancelled: Callable[[], None]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (canonical name, tensor) for the parameters `names` of the component, in the order of its files.

    Parameters that are views of one stored tensor share its memory. Calls `check_cancelled` before every stored tensor.
    Raises WeightFileError, FileChangedError, NotFiniteError for a network in `_FINITE`, and the errors of
    `check_cancelled`.
    """
    for weight_file in component.files:
        stored_names = read_header(weight_file.path).tensors.keys()
        held = component.views(stored_names).items()
        views = {stored: [view for view in found if view.name in names] for stored, found in held}
        wanted = {stored: found for stored, found in views.items() if found}
        is_checked = component.role in _FINITE
        file = SafetensorsFile(weight_file.path, weight_file.fingerprint, wanted, finite=is_checked)
        for stored_name in file.names:
            check_cancelled()
            stored = file.read(stored_name)
            yield from ((view.name, view.of(stored)) for view in wanted[stored_name])
