"""The inputs of a text encoder's graph: an engine looks the token embeddings up itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from runtime.engines.engine import Field
from runtime.networks.end_positions import end_positions

_TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def embed_tokens(ids: Field, weights: Mapping[str, torch.Tensor], end_token: int) -> dict[str, Field]:
    """Token ids [rows, 77] as embeddings and the position of the end token. `weights` has the token embedding."""
    assert isinstance(ids, torch.Tensor)
    embeddings = torch.nn.functional.embedding(ids, weights[_TOKEN_EMBEDDING])
    return {"embeddings": embeddings, "end": end_positions(ids, end_token)}
