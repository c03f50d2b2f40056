"""The UNet's network."""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from runtime.networks.architecture import Architecture
from runtime.networks.attention import ImagePrompt, install_attention
from runtime.networks.network import Network


class UNet(Network):
    """The denoising prediction for a batch of rows. The inputs are the stacked fields of `Row`, or None."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(architecture.options)
        install_attention(self.unet)

    @property
    def weights(self) -> nn.Module:
        unet: nn.Module = self.unet
        return unet

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
        ip_k: torch.Tensor | None = None,
        ip_v: torch.Tensor | None = None,
        ip_bias: torch.Tensor | None = None,
        ip_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Returns `prediction` [rows, 4, h, w]."""
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        has_prompt = ip_k is not None and ip_v is not None and ip_bias is not None
        prompt = ImagePrompt(ip_k, ip_v, ip_bias, ip_mask) if has_prompt else None  # type: ignore[arg-type]
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
