"""Views: a parameter is a view of a stored tensor, so that files are not converted. Importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.files.safetensors_file import WeightFileError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class View:
    """A parameter in a stored tensor: one of `parts` equal parts along the first axis.

    It can be transposed, or a linear layer that is stored as a 1x1 convolution. `is_alias`: the program of this layout
    does not use the stored name. A tensor with the name that this program uses has precedence.
    """

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False
    is_linear: bool = False
    is_alias: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the parameter. Raises WeightFileError when the shape of the stored tensor does not fit."""
        shape = stored
        if self.parts > 1:
            if not shape or shape[0] % self.parts:
                raise WeightFileError(
                    f"{self.name}: shape {list(stored)} does not divide into {self.parts} equal parts"
                )
            shape = (shape[0] // self.parts, *shape[1:])
        if self.transposed:
            if len(shape) != 2:
                raise WeightFileError(f"{self.name}: expected a matrix, found shape {list(stored)}")
            shape = (shape[1], shape[0])
        return shape[:2] if self.is_linear and shape[2:] == (1, 1) else shape

    def of(self, stored: torch.Tensor) -> torch.Tensor:
        """The parameter, a view of the memory of the stored tensor."""
        tensor = stored.chunk(self.parts)[self.part] if self.parts > 1 else stored
        if self.transposed:
            tensor = tensor.t()
        return tensor.flatten(1) if self.is_linear else tensor


Views = tuple[View, ...]
