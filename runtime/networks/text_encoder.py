"""CLIP's text encoders, with and without projection."""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from runtime.networks.architecture import Architecture
from runtime.networks.network import Network


class TextEncoder(Network):
    """Token ids [rows, T] int64 -> `hidden_states`, `normed_states` and `pooled`.

    hidden_states: the token embeddings and each layer's output, each [rows, T, D]. Only the last has the final norm.
    normed_states: the same states, each with the final norm.
    pooled: [rows, P], projected if the model has a projection.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        text = CLIPTextConfig(**architecture.options)
        self.text_model = CLIPTextModel._from_config(text, attn_implementation="sdpa")
        # No weight file holds this buffer, so it gets its values here. All other meta tensors are weights.
        embeddings = self.text_model.embeddings
        embeddings.position_ids = torch.arange(text.max_position_embeddings, device="cpu")[None]
        if architecture.with_projection:
            self.text_projection = nn.Linear(text.hidden_size, text.projection_dim, bias=False)

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
