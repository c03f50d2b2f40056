"""Where the IP-Adapters of a plan act."""

from __future__ import annotations

import torch

from runtime.plan import IP_MASK, Plan
from runtime.stages.call import Tensors
from runtime.stages.denoiser.pictures import unit_picture


def image_prompt_mask(plan: Plan, tensors: Tensors) -> torch.Tensor | None:
    """[adapters, padded H, padded W], 0 or 1, in the order of the image prompts. None: no adapter has a mask.

    An adapter with a mask has an image prompt for each picture.
    """
    masks = []
    for index, adapter in enumerate(plan.ip_adapters):
        grey = unit_picture(plan, IP_MASK.format(index), tensors)
        if grey is None:
            masks.append(torch.ones(plan.padded_height, plan.padded_width))
        else:
            threshold = plan.request.ip_adapter[index].mask_threshold  # by default that of diffusers
            masks += [(grey[0] >= threshold).float()] * len(adapter.images)
    has_masks = any(plan.picture(IP_MASK.format(index)) for index in range(len(plan.ip_adapters)))
    return torch.stack(masks) if has_masks else None
