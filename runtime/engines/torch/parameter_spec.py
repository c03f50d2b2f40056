"""What an engine needs of the weights that are bound to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TensorForm:
    """The dtype, memory format and device of parameters in memory."""

    dtype: torch.dtype
    memory_format: torch.memory_format
    device: torch.device

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """An engine's parameters: the digest of its architecture, their shapes by name, and their form in memory.

    `fixed`: the engine needs them at fixed addresses, to which the weights of each call are copied.
    """

    architecture: str
    shapes: Mapping[str, torch.Size]
    form: TensorForm
    fixed: bool = False
