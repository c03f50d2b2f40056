"""The pictures of a plan as tensors of the padded size."""

from __future__ import annotations

import numpy as np
import torch

from runtime.plan import Plan
from runtime.stages.call import Tensors


def unit_picture(plan: Plan, field: str, tensors: Tensors) -> torch.Tensor | None:
    """The picture of a field [3, padded H, padded W] in [0, 1], on the CPU; None: the request has none.

    tensors: the stage's inputs. The last pixels fill the padding, as those of the init image do.
    """
    picture = plan.picture(field)
    if picture is None:
        return None
    bottom, right = plan.padded_height - picture.height, plan.padded_width - picture.width
    padded = np.pad(picture.pixels(tensors), ((0, bottom), (0, right), (0, 0)), mode="edge")
    return torch.from_numpy(padded).permute(2, 0, 1).float().div_(255.0)
