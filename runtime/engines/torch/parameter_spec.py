"""What an engine needs of the weights that are bound to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def empty(self, shape: torch.Size) -> torch.Tensor:
        """New memory for a parameter. Its content is arbitrary."""
        return self._empty(shape, self.device)

    def strides(self, shape: torch.Size) -> tuple[int, ...]:
        """The strides of a parameter. Engines that share a device may want different ones."""
        return self._empty(shape, torch.device("meta")).stride()

    def _empty(self, shape: torch.Size, device: torch.device) -> torch.Tensor:
        memory_format = self.memory_format if len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=self.dtype, device=device, memory_format=memory_format)


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """An engine's parameters: the digest of its architecture, their shapes by name, and their form in memory.

    `fixed`: the engine needs them at fixed addresses, to which the weights of each call are copied.
    """

    architecture: str
    shapes: Mapping[str, torch.Size]
    form: TensorForm
    fixed: bool = False

    def nbytes(self, names: Iterable[str]) -> int:
        """The size of these parameters in memory."""
        return self.form.dtype.itemsize * sum(self.shapes[name].numel() for name in names)
