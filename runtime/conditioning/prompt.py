"""The prompt's part of a row: text, pooled text and SDXL's sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Prompt:
    """text [branches, T, D], pooled [branches, P] or None, and time_ids [6] or None (both SDXL's), float32.

    The branches are the negative prompt and the prompt, or the prompt alone; the prompt is the last one.
    """

    text: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    @property
    def branches(self) -> int:
        return len(self.text)

    def fields(self, branch: int) -> dict[str, Any]:
        """The fields of a row of this branch."""
        if self.pooled is None or self.time_ids is None:
            return {"text": self.text[branch]}
        return {"text": self.text[branch], "pooled": self.pooled[branch], "time_ids": self.time_ids}


def size_ids(height: int, width: int, top: int = 0, left: int = 0) -> torch.Tensor:
    """SDXL's size conditioning [6] (arXiv 2307.01952): original size, crop, target size; pixels, each height first.

    `top`, `left`: the place of a window in the picture. As in DemoFusion (arXiv 2311.16973) it is the crop, and both
    sizes are the whole picture's: in training, a crop told the model which part of a picture it saw.
    """
    size = (float(height), float(width))
    return torch.tensor([*size, float(top), float(left), *size])
