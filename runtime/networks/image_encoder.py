"""CLIP's image encoder with projection, from which IP-Adapters take their tokens."""

from __future__ import annotations

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
        self.vision_model = CLIPVisionModel._from_config(config, attn_implementation="sdpa")
        # No weight file holds this buffer, and `forward` does not use it.
        embeddings = self.vision_model.embeddings
        embeddings.position_ids = torch.arange(embeddings.num_positions, device="cpu")[None]
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        model = self.vision_model
        *layers, last = model.encoder.layers
        hidden = model.pre_layrnorm(self._embedded(pixels))
        for layer in layers:
            hidden = layer(hidden, attention_mask=None)
        pooled = model.post_layernorm(last(hidden, attention_mask=None)[:, 0])
        return {"embeds": self.visual_projection(pooled), "penultimate": hidden}

    def _embedded(self, pixels: torch.Tensor) -> torch.Tensor:
        """[rows, 1 + patches, D]: the class and the patches, with their positions."""
        embeddings = self.vision_model.embeddings
        patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = embeddings.class_embedding.expand(patches.shape[0], 1, -1)  # `len` would fix the rows of a graph
        positions: torch.Tensor = embeddings.position_embedding.weight
        return torch.cat([first, patches], dim=1) + positions
