"""The UNet's network."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from runtime.networks.architecture import Architecture
from runtime.networks.attention import ImagePrompt, install_attention
from runtime.networks.ip_masks import adapter_masks
from runtime.networks.network import Network


class UNet(Network):
    """The denoising prediction for a batch of rows. The inputs are the stacked fields of `Row`, or None."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(architecture.options)
        self.image_prompts = install_attention(self.unet)

    @property
    def weights(self) -> nn.Module:
        unet: nn.Module = self.unet
        return unet

    def forward(
        self,
        latent: torch.Tensor,
        concat: torch.Tensor | None = None,
        ip_k: torch.Tensor | None = None,
        ip_v: torch.Tensor | None = None,
        ip_bias: torch.Tensor | None = None,
        ip_masks: tuple[torch.Tensor, ...] | None = None,
        ip_mask_index: torch.Tensor | None = None,
        **fields: Any,
    ) -> dict[str, torch.Tensor]:
        """Returns `prediction` [rows, 4, h, w]. `fields`: the other ones of `Row`, as `predict` takes them."""
        prompt = None
        if ip_k is not None and ip_v is not None and ip_bias is not None:
            masks = None
            if ip_masks is not None and ip_mask_index is not None:
                masks = {level: adapter_masks(ip_masks[level], ip_mask_index) for level in self.image_prompts.levels}
            prompt = ImagePrompt(ip_k, ip_v, ip_bias, masks)
        if concat is not None:
            latent = torch.cat([latent, concat], dim=1)
        return {"prediction": self.predict(latent, image_prompt=prompt, **fields)}

    def predict(
        self,
        latent: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
        timestep_cond: torch.Tensor | None = None,
        residuals: tuple[torch.Tensor, ...] | None = None,
        image_prompt: ImagePrompt | None = None,
    ) -> torch.Tensor:
        """As `forward`, with all input channels in `latent` and with resized masks. Exported graphs start here."""
        prediction: torch.Tensor = self.unet(
            latent,
            t,
            text,
            timestep_cond=timestep_cond,
            added_cond_kwargs=None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids},
            cross_attention_kwargs={"image_prompt": image_prompt} if image_prompt else None,
            down_block_additional_residuals=residuals[:-1] if residuals else None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )[0]
        return prediction
