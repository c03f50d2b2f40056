"""Windows: rectangular parts of a picture. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Window(NamedTuple):
    """A part of a picture, in latents."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, values: torch.Tensor, scale: int = 1) -> torch.Tensor:
        """This part of `values` [..., scale * h, scale * w], as a view. `scale`: places for each latent."""
        rows = slice(scale * self.top, scale * (self.top + self.height))
        columns = slice(scale * self.left, scale * (self.left + self.width))
        return values[..., rows, columns]
