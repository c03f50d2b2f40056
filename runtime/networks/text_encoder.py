"""CLIP's text encoders, with and without projection."""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from runtime.networks.architecture import Architecture
from runtime.networks.end_positions import end_positions
from runtime.networks.network import Network
from runtime.networks.token_vectors import embed


class TextEncoder(Network):
    """Token ids [rows, T] int64 -> `hidden_states`, `normed_states` and `pooled`.

    vectors [rows, n, D], of textual inversions: the id `vocab_size` + i is a token whose embedding is vector i.
    hidden_states: the embeddings and each layer's output, each [rows, T, D], without the final norm.
    normed_states: the same states, each with the final norm.
    pooled: [rows, P], projected if the model has a projection.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        text = CLIPTextConfig(**architecture.options)
        self._vocabulary: int = text.vocab_size
        self.text_model = CLIPTextModel._from_config(text, attn_implementation="sdpa")
        # No weight file holds this buffer, so it gets its values here. All other meta tensors are weights.
        embeddings = self.text_model.embeddings
        embeddings.position_ids = torch.arange(text.max_position_embeddings, device="cpu")[None]
        if architecture.with_projection:
            self.text_projection = nn.Linear(text.hidden_size, text.projection_dim, bias=False)

    def forward(
        self, ids: torch.Tensor, vectors: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        embeddings = embed(self.text_model.embeddings.token_embedding, self._vocabulary, ids, vectors)
        return self.encode(embeddings, end_positions(ids, self.text_model.eos_token_id))

    def encode(self, embeddings: torch.Tensor, end: torch.Tensor) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        """As `forward`, from token embeddings [rows, T, D] and `end_positions` [rows]. Exported graphs start here."""
        model = self.text_model
        places = torch.arange(embeddings.shape[1], device=embeddings.device)
        hidden = [embeddings + model.embeddings.position_embedding(places)]
        for layer in model.encoder.layers:
            hidden.append(layer(hidden[-1], attention_mask=None, is_causal=True))
        normed = tuple(model.final_layer_norm(states) for states in hidden)
        pooled = normed[-1][torch.arange(embeddings.shape[0], device=embeddings.device), end]
        if hasattr(self, "text_projection"):
            pooled = self.text_projection(pooled)
        return {"hidden_states": tuple(hidden), "normed_states": normed, "pooled": pooled}
