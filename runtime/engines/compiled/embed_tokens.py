"""The inputs of a text encoder's graph: an engine looks the token embeddings up itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from runtime.engines.engine import Field
from runtime.networks.end_positions import end_positions
from runtime.networks.token_vectors import embed

_TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def embed_tokens(
    fields: Mapping[str, Field], weights: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> dict[str, Field]:
    """The embeddings of a batch, and the position of each row's end token.

    fields: `ids` [rows, 77] and, if the rows have them, `vectors` (see `TextEncoder`). weights: has the token
    embedding. options: of the architecture.
    """
    ids, vectors = fields["ids"], fields.get("vectors")
    assert isinstance(ids, torch.Tensor)
    assert vectors is None or isinstance(vectors, torch.Tensor)
    lookup = partial(torch.nn.functional.embedding, weight=weights[_TOKEN_EMBEDDING])
    embeddings = embed(lookup, options["vocab_size"], ids, vectors)
    return {"embeddings": embeddings, "end": end_positions(ids, options["eos_token_id"])}
