"""Rows: the inputs of the UNet for one latent."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from runtime.engines.engine import Inputs


@dataclass(frozen=True)
class Row:
    """One row of a UNet call. A feature produces fields; the step loop does not depend on features.

    latent [4, h, w]; t []; text [T, D]; pooled [P] and time_ids [6] (SDXL); timestep_cond [E] (LCM-distilled UNets).
    concat [C, h, w] (IC-Light): further input channels.
    residuals (ControlNet): one [C, h, w] for each of the UNet's skip connections, the middle block's last.
    ip_k, ip_v [adapters, tokens, sum of inner widths] (IP-Adapter): keys and values, packed over all cross-attention
    layers in module order, the adapter's scale folded into ip_v. ip_bias [adapters, tokens] is 0, or -inf where an
    adapter has fewer tokens; each adapter has at least one 0. An absent adapter has zero values and zero bias.
    ip_masks: for each resolution level of the UNet, masks [masks, queries]; None: all adapters act everywhere.
    ip_mask_index [adapters], integers: the mask of each adapter.
    """

    latent: torch.Tensor
    t: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    timestep_cond: torch.Tensor | None = None
    concat: torch.Tensor | None = None
    residuals: tuple[torch.Tensor, ...] | None = None
    ip_k: torch.Tensor | None = None
    ip_v: torch.Tensor | None = None
    ip_bias: torch.Tensor | None = None
    ip_masks: tuple[torch.Tensor, ...] | None = None
    ip_mask_index: torch.Tensor | None = None

    def inputs(self) -> Inputs:
        """The fields that are not None, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
