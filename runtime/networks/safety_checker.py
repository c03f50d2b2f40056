"""The safety checker of Stable Diffusion 1.x (CompVis): CLIP's image encoder, and concepts to compare with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPVisionConfig

from runtime.networks.architecture import Architecture
from runtime.networks.image_encoder import embed_patches, make_vision_model
from runtime.networks.network import Network

CONCEPTS, SPECIAL_CONCEPTS = 17, 3


class SafetyChecker(Network):
    """Pixels [rows, 3, S, S] as CLIP's image processor makes them -> how far they are above each concept's threshold.

    concepts: [rows, 17], special: [rows, 3]: the cosine similarity, less the threshold.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        config = CLIPVisionConfig(**architecture.options)
        self.vision_model = make_vision_model(config)
        self.visual_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self.concept_embeds = nn.Parameter(torch.empty(CONCEPTS, config.projection_dim))
        self.special_care_embeds = nn.Parameter(torch.empty(SPECIAL_CONCEPTS, config.projection_dim))
        self.concept_embeds_weights = nn.Parameter(torch.empty(CONCEPTS))
        self.special_care_embeds_weights = nn.Parameter(torch.empty(SPECIAL_CONCEPTS))

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        model: Any = self.vision_model
        hidden = embed_patches(model, pixels)
        for layer in model.encoder.layers:
            hidden = layer(hidden, attention_mask=None)
        embeds = self.visual_projection(model.post_layernorm(hidden[:, 0]))
        return {
            "concepts": _similarity(embeds, self.concept_embeds) - self.concept_embeds_weights,
            "special": _similarity(embeds, self.special_care_embeds) - self.special_care_embeds_weights,
        }


def _similarity(embeds: torch.Tensor, concepts: torch.Tensor) -> torch.Tensor:
    """Cosine similarity [rows, concepts]."""
    return nn.functional.normalize(embeds) @ nn.functional.normalize(concepts).t()
