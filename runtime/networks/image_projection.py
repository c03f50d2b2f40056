"""An IP-Adapter's own network (arXiv 2308.06721): from a picture's embedding to keys and values of cross-attention."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection as BaseProjection
from diffusers.models.embeddings import IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from torch import nn

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network

_HEAD_WIDTH = 64  # of the resampler of an IP-Adapter Plus


class ImageProjection(Network):
    """`embeds` [rows, P] or `penultimate` [rows, T, D] of the image encoder, by the kind of adapter.

    tokens: [rows, tokens, C], the image prompt. ip_k, ip_v: [rows, tokens, sum of inner widths], packed over all
    cross-attention layers of the UNet in module order.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        options = architecture.options
        self.image_proj = _projection(options)
        widths, tokens = options["inner_widths"], options["cross_attention_dim"]
        self.to_k_ip = nn.ModuleList(nn.Linear(tokens, width, bias=False) for width in widths)
        self.to_v_ip = nn.ModuleList(nn.Linear(tokens, width, bias=False) for width in widths)

    def forward(
        self, embeds: torch.Tensor | None = None, penultimate: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        tokens = self.image_proj(embeds if penultimate is None else penultimate)
        return {
            "tokens": tokens,
            "ip_k": torch.cat([layer(tokens) for layer in self.to_k_ip], dim=-1),
            "ip_v": torch.cat([layer(tokens) for layer in self.to_v_ip], dim=-1),
        }


def _projection(options: dict[str, Any]) -> nn.Module:
    embed, cross = options["image_embed_dim"], options["cross_attention_dim"]
    if options["projection"] == "base":
        base: nn.Module = BaseProjection(embed, cross, options["tokens"])
        return base
    if options["projection"] == "full":
        full: nn.Module = IPAdapterFullImageProjection(embed, cross)
        return full
    plus: nn.Module = IPAdapterPlusImageProjection(
        embed_dims=embed,
        output_dims=cross,
        hidden_dims=options["hidden_dims"],
        depth=options["depth"],
        dim_head=_HEAD_WIDTH,
        heads=options["heads"],
        num_queries=options["tokens"],
        ffn_ratio=options["ffn_ratio"],
    )
    return plus
