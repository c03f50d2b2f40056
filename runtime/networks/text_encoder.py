"""CLIP's text encoders, with and without projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from runtime.networks.network import Network, complete


class TextEncoder(Network):
    """Token ids [1, T] int64 -> `hidden_states` [1, T, D] (embeddings, then one a layer, all but the last without the
    final norm), `normed_states` (the same, all with it), and `pooled` [1, P]: projected where the model has a
    projection."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        text = CLIPTextConfig(**config)
        self.text_model = CLIPTextModel._from_config(text, attn_implementation="sdpa")
        # A buffer that no file holds; everything else that a meta module lacks is a weight.
        embeddings = self.text_model.embeddings
        embeddings.position_ids = torch.arange(text.max_position_embeddings, device="cpu")[None]
        if "CLIPTextModelWithProjection" in (config.get("architectures") or []):
            self.text_projection = nn.Linear(text.hidden_size, text.projection_dim, bias=False)

    @classmethod
    def architecture(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        # What is no parameter stays out: a configuration may name its attention, even a repository to take code from.
        return complete(CLIPTextConfig, config)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        found = self.text_model(input_ids=ids, output_hidden_states=True)
        pooled = found.pooler_output
        if hasattr(self, "text_projection"):
            pooled = self.text_projection(pooled)
        inner = (self.text_model.final_layer_norm(states) for states in found.hidden_states[:-1])
        return {
            "hidden_states": tuple(found.hidden_states),
            "normed_states": (*inner, found.last_hidden_state),
            "pooled": pooled,
        }
