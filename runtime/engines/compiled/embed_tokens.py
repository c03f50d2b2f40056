"""The inputs and outputs of a text encoder's graph: an engine looks the token embeddings up itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.engines.engine import Field, Outputs
from runtime.networks.architecture import Architecture
from runtime.networks.end_positions import end_positions
from runtime.networks.token_vectors import embed

_TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def outside_shapes(architecture: Architecture) -> dict[str, torch.Size]:
    """The parameters that the graph does not take: the token embedding of a text encoder."""
    if architecture.kind != "text_encoder":
        return {}
    return {_TOKEN_EMBEDDING: torch.Size((architecture.options["vocab_size"], architecture.options["hidden_size"]))}


def token_count(fields: Mapping[str, Field]) -> int:
    """The tokens of each row for a text encoder; 0 for other networks."""
    ids = fields.get("ids")
    return ids.shape[1] if isinstance(ids, torch.Tensor) else 0


def embed_tokens(
    fields: Mapping[str, Field], weights: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> dict[str, Field]:
    """The embeddings [rows, 77, D] of a batch, and the position of each row's end token.

    fields: `ids` [rows, tokens] and, if the rows have them, `vectors` (see `TextEncoder`). weights: has the token
    embedding. options: of the architecture.
    """
    ids, vectors = fields["ids"], fields.get("vectors")
    assert isinstance(ids, torch.Tensor)
    assert vectors is None or isinstance(vectors, torch.Tensor)
    lookup = partial(torch.nn.functional.embedding, weight=weights[_TOKEN_EMBEDDING])
    embeddings = embed(lookup, options["vocab_size"], ids, vectors)
    # A tokenizer may have fewer tokens. As each token attends only to those before it, they do not see the zeros.
    embeddings = torch.nn.functional.pad(embeddings, (0, 0, 0, MAX_TOKENS - embeddings.shape[1]))
    return {"embeddings": embeddings, "end": end_positions(ids, options["eos_token_id"])}


def first_tokens(outputs: Outputs, count: int) -> Outputs:
    """The outputs of a text encoder for its first `count` tokens; with 0, those of another network as they are."""
    if not count:
        return outputs
    return {
        name: tuple(states[:, :count] for states in value) if isinstance(value, tuple) else value
        for name, value in outputs.items()
    }
