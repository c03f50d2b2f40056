"""IP-Adapter masks of a call. Importing this needs no diffusers."""

from __future__ import annotations

import torch


def adapter_masks(masks: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The mask of each adapter, [rows, adapters, queries].

    masks: [rows, masks, queries] of one resolution level. index: [rows, adapters], the mask of each adapter.
    """
    rows = torch.arange(len(index), device=index.device)[:, None]
    return masks[rows, index]
