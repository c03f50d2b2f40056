"""The UNet's network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from runtime.networks.attention import ImagePrompt, install_attention
from runtime.networks.network import Network, complete

# One number says the same as one for each level.
_BY_LEVEL = (
    "attention_head_dim",
    "cross_attention_dim",
    "layers_per_block",
    "num_attention_heads",
    "transformer_layers_per_block",
)


class UNet(Network):
    """One denoising prediction for a block of rows. Inputs are the fields of `Row`, stacked; absent ones are None."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(config)
        install_attention(self.unet)

    @property
    def weights(self) -> nn.Module:
        unet: nn.Module = self.unet
        return unet

    @classmethod
    def architecture(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        found = complete(UNet2DConditionModel, config)
        levels = len(found["down_block_types"])
        spread = {name: [found[name]] * levels for name in _BY_LEVEL if isinstance(found[name], int)}
        return {**found, **spread}

    def forward(
        self,
        latent: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        concat: torch.Tensor | None = None,
        residuals: tuple[torch.Tensor, ...] | None = None,
        ip_k: tuple[torch.Tensor, ...] | None = None,
        ip_v: tuple[torch.Tensor, ...] | None = None,
        ip_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """{"prediction": [rows, 4, h, w]}."""
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        prompt = ImagePrompt(ip_k, ip_v, ip_mask) if ip_k is not None and ip_v is not None else None
        prediction = self.unet(
            latent if concat is None else torch.cat([latent, concat], dim=1),
            t,
            text,
            timestep_cond=timestep_cond,
            added_cond_kwargs=added,
            cross_attention_kwargs={"image_prompt": prompt} if prompt else None,
            down_block_additional_residuals=residuals[:-1] if residuals else None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )[0]
        return {"prediction": prediction}
