"""The IP-Adapters' part of a row (arXiv 2308.06721): keys and values of the image prompts, and where they act."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from runtime.window import Window


@dataclass(frozen=True)
class ImagePrompts:
    """keys, values: [branches, adapters, tokens, sum of inner widths]; bias: [adapters, tokens]; see `Row`.

    mask: [adapters, H, W], 0 or 1, in pixels; None: all adapters act everywhere.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor | None = None

    @classmethod
    def none(cls) -> ImagePrompts:
        """Those of a request without IP-Adapters."""
        return cls(torch.zeros(1, 0, 0, 0), torch.zeros(1, 0, 0, 0), torch.zeros(0, 0))

    def to(self, device: torch.device) -> ImagePrompts:
        mask = None if self.mask is None else self.mask.to(device)
        return ImagePrompts(self.keys.to(device), self.values.to(device), self.bias.to(device), mask)

    def crop(self, window: Window, scale: int) -> ImagePrompts:
        """The image prompts with this part of the mask, of `scale` pixels a latent."""
        return self if self.mask is None else replace(self, mask=window.crop(self.mask, scale))

    def fields(self, branch: int) -> dict[str, torch.Tensor]:
        """The fields of a row of this branch of the prompt; none without adapters."""
        if not len(self.bias):
            return {}
        found = {"ip_k": self.keys[branch], "ip_v": self.values[branch], "ip_bias": self.bias}
        return found if self.mask is None else {**found, "ip_mask": self.mask}
