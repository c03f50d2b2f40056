"""CLIP's image encoder with projection, from which IP-Adapters take their tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPVisionModel

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network


class ImageEncoder(Network):
    """Pixels [rows, 3, S, S] as CLIP's image processor makes them, of the configuration's size S.

    Returns `embeds` [rows, P], projected, and `penultimate` [rows, 1 + patches, D], the input of the last layer.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        config = CLIPVisionConfig(**architecture.options)
        self.vision_model: Any = make_vision_model(config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        model = self.vision_model
        *layers, last = model.encoder.layers
        hidden = embed_patches(model, pixels)
        for layer in layers:
            hidden = layer(hidden, attention_mask=None)
        pooled = model.post_layernorm(last(hidden, attention_mask=None)[:, 0])
        return {"embeds": self.visual_projection(pooled), "penultimate": hidden}


def make_vision_model(config: CLIPVisionConfig) -> nn.Module:
    model: nn.Module = CLIPVisionModel._from_config(config, attn_implementation="sdpa")
    # No weight file holds this buffer, and `embed_patches` does not use it.
    embeddings: Any = model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device="cpu")[None]
    return model


def embed_patches(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The input of the first layer [rows, 1 + patches, D]: the class and the patches, with their positions."""
    embeddings = model.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    first = embeddings.class_embedding.expand(patches.shape[0], 1, -1)  # `len` would fix the rows of a graph
    positions: torch.Tensor = embeddings.position_embedding.weight
    hidden: torch.Tensor = model.pre_layrnorm(torch.cat([first, patches], dim=1) + positions)
    return hidden
