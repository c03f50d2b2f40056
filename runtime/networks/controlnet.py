"""A ControlNet's network (arXiv 2302.05543)."""

from __future__ import annotations

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import nn

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network


class ControlNet(Network):
    """The residuals for a UNet's skip connections.

    latent, t, text, pooled, time_ids: as for the UNet. A network without cross-attention needs no text. condition: the
    control picture [rows, 3, 8h, 8w] in [0, 1].
    residuals: one [rows, C, h, w] per skip connection at that connection's size, then the middle block's; not scaled.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.controlnet = ControlNetModel.from_config(architecture.options)

    @property
    def weights(self) -> nn.Module:
        controlnet: nn.Module = self.controlnet
        return controlnet

    def forward(
        self,
        latent: torch.Tensor,
        t: torch.Tensor,
        condition: torch.Tensor,
        text: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> dict[str, tuple[torch.Tensor, ...]]:
        down, mid = self.controlnet(
            latent,
            t,
            text,
            controlnet_cond=condition,
            added_cond_kwargs=None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids},
            return_dict=False,
        )
        return {"residuals": (*down, mid)}
