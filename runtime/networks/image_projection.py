"""An IP-Adapter's own network (arXiv 2308.06721): from a picture's embedding to keys and values of cross-attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection as BaseProjection
from diffusers.models.embeddings import (
    IPAdapterFaceIDImageProjection,
    IPAdapterFaceIDPlusImageProjection,
    IPAdapterFullImageProjection,
    IPAdapterPlusImageProjection,
)
from torch import nn

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network

_HEAD_WIDTH = 64  # of a resampler


class ImageProjection(Network):
    """Each kind of adapter takes some of these inputs.

    embeds [rows, P] (base) and penultimate [rows, T, D] (full, plus, faceid_plus): of the image encoder. InstantID is a
    `plus` whose only token is a face's embedding. face [rows, F] (faceid, faceid_plus): a face's embedding.
    shortcut [rows] (faceid_plus): 1 for FaceID Plus V2, which adds the face's tokens to the resampler's, 0 for V1.
    tokens: [rows, tokens, C], the image prompt. ip_k, ip_v: [rows, tokens, sum of inner widths], packed over all
    cross-attention layers of the UNet in module order.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        options = architecture.options
        self._kind = options["projection"]
        self.image_proj: Any = _PROJECTIONS[self._kind](options)
        widths, tokens = options["inner_widths"], options["cross_attention_dim"]
        self.to_k_ip = nn.ModuleList(nn.Linear(tokens, width, bias=False) for width in widths)
        self.to_v_ip = nn.ModuleList(nn.Linear(tokens, width, bias=False) for width in widths)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = self._face_plus_tokens(**inputs) if self._kind == "faceid_plus" else self.image_proj(*inputs.values())
        return {
            "tokens": tokens,
            "ip_k": torch.cat([layer(tokens) for layer in self.to_k_ip], dim=-1),
            "ip_v": torch.cat([layer(tokens) for layer in self.to_v_ip], dim=-1),
        }

    def _face_plus_tokens(self, face: torch.Tensor, penultimate: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        """As diffusers' module, which has the picture's embedding and the shortcut as attributes, not as inputs."""
        own = self.image_proj
        face_tokens = own.norm(own.proj(face).reshape(-1, own.num_tokens, own.embed_dim))
        hidden, picture = face_tokens, own.proj_in(penultimate)
        for block in own.layers:
            hidden = block(picture, hidden, hidden)
        tokens: torch.Tensor = own.norm_out(own.proj_out(hidden)) + shortcut[:, None, None] * face_tokens
        return tokens


def _base(options: dict[str, Any]) -> nn.Module:
    module: nn.Module = BaseProjection(options["image_embed_dim"], options["cross_attention_dim"], options["tokens"])
    return module


def _full(options: dict[str, Any]) -> nn.Module:
    module: nn.Module = IPAdapterFullImageProjection(options["image_embed_dim"], options["cross_attention_dim"])
    return module


def _plus(options: dict[str, Any]) -> nn.Module:
    module: nn.Module = IPAdapterPlusImageProjection(
        embed_dims=options["image_embed_dim"],
        output_dims=options["cross_attention_dim"],
        hidden_dims=options["hidden_dims"],
        depth=options["depth"],
        dim_head=_HEAD_WIDTH,
        heads=options["heads"],
        num_queries=options["tokens"],
        ffn_ratio=options["ffn_ratio"],
    )
    return module


def _faceid(options: dict[str, Any]) -> nn.Module:
    module: nn.Module = IPAdapterFaceIDImageProjection(
        options["face_embed_dim"], options["cross_attention_dim"], options["face_ffn_ratio"], options["tokens"]
    )
    return module


def _faceid_plus(options: dict[str, Any]) -> nn.Module:
    module: nn.Module = IPAdapterFaceIDPlusImageProjection(
        embed_dims=options["hidden_dims"],
        output_dims=options["cross_attention_dim"],
        hidden_dims=options["image_embed_dim"],
        id_embeddings_dim=options["face_embed_dim"],
        depth=options["depth"],
        dim_head=_HEAD_WIDTH,
        heads=options["heads"],
        num_tokens=options["tokens"],
        ffn_ratio=options["ffn_ratio"],
        ffproj_ratio=options["face_ffn_ratio"],
    )
    return module


_PROJECTIONS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "base": _base,
    "full": _full,
    "plus": _plus,
    "faceid": _faceid,
    "faceid_plus": _faceid_plus,
}
