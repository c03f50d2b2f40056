"""Where the IP-Adapters of a plan act."""

from __future__ import annotations

import torch

from runtime.conditioning.ip_masks import PictureMasks
from runtime.plan import IP_MASK, Plan
from runtime.stages.call import Tensors
from runtime.stages.denoiser.pictures import unit_picture

_EVERYWHERE = -1


def image_prompt_masks(plan: Plan, tensors: Tensors) -> PictureMasks | None:
    """The masks of the padded picture, and the index of each image prompt's. None: no adapter has a mask.

    An adapter with a mask has an image prompt for each picture.
    """
    masks: list[torch.Tensor] = []
    index: list[int] = []
    for number, adapter in enumerate(plan.ip_adapters):
        grey = unit_picture(plan, IP_MASK.format(number), tensors)
        if grey is None:
            index.append(_EVERYWHERE)
        else:
            index += [len(masks)] * len(adapter.images)
            threshold = plan.request.ip_adapter[number].mask_threshold  # by default that of diffusers
            masks.append(grey[0] >= threshold)
    return PictureMasks(torch.stack(masks), torch.tensor(index)) if masks else None
