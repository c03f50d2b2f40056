"""The IP-Adapters' part of a row (arXiv 2308.06721): keys and values of the image prompts, and where they act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from runtime.conditioning.ip_masks import LevelMasks


@dataclass(frozen=True)
class ImagePrompts:
    """keys, values: [branches, adapters, tokens, sum of inner widths]; bias: [adapters, tokens]; see `Row`.

    masks: None: all adapters act everywhere.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor
    masks: LevelMasks | None = None

    @classmethod
    def none(cls) -> ImagePrompts:
        """Those of a request without IP-Adapters."""
        return cls(torch.zeros(1, 0, 0, 0), torch.zeros(1, 0, 0, 0), torch.zeros(0, 0))

    def to(self, device: torch.device) -> ImagePrompts:
        masks = None if self.masks is None else self.masks.to(device)
        return ImagePrompts(self.keys.to(device), self.values.to(device), self.bias.to(device), masks)

    def fields(self, branch: int) -> dict[str, Any]:
        """The fields of a row of this branch of the prompt; none without adapters."""
        if not len(self.bias):
            return {}
        found: dict[str, Any] = {"ip_k": self.keys[branch], "ip_v": self.values[branch], "ip_bias": self.bias}
        return (
            found if self.masks is None else {**found, "ip_masks": self.masks.masks, "ip_mask_index": self.masks.index}
        )
