"""The safety check of a finished picture, as diffusers' StableDiffusionSafetyChecker makes it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from runtime.engines.ask import Ask, Bound
from runtime.engines.engine import Outputs
from runtime.files.crop_square import crop_square
from runtime.networks.clip_pixels import normalized
from runtime.stages.call import Array

_ADJUSTMENT = 0.01  # added to each concept of a picture that is near a special one
_DIGITS = 3  # diffusers rounds each score to so many


@dataclass(frozen=True, eq=False)
class SafetyCheck:
    """The network, and the side of its pictures."""

    bound: Bound
    side: int

    def is_unsafe(self, pixels: Array) -> Generator[list[Ask], list[Outputs], bool]:
        """Whether a picture, UINT8 [H, W, 3], shows a concept of the checker. Yields one ask."""
        unit = torch.from_numpy(crop_square(pixels, self.side)).permute(2, 0, 1).float() / 255.0
        (outputs,) = yield [Ask(self.bound, {"pixels": normalized(unit)})]
        adjustment = _ADJUSTMENT if _is_over(outputs["special"], 0.0) else 0.0
        return _is_over(outputs["concepts"], adjustment)


def _is_over(scores: object, adjustment: float) -> bool:
    """Whether one of the scores, with the adjustment, is above 0."""
    assert isinstance(scores, torch.Tensor)
    return bool((np.round(scores.cpu().numpy() + adjustment, _DIGITS) > 0).any())
