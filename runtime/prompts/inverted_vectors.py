"""Reads the vectors of textual inversions, and numbers their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.files.safetensors_file import NotFiniteError, SafetensorsFile, WeightFileError
from runtime.files.stored_file import FileChangedError
from runtime.plan import EmbeddingPlan
from runtime.prompts.inversion import InvertedToken
from runtime.stage_errors import InvalidArgument


def inverted_tokens(embeddings: Sequence[EmbeddingPlan], vocabulary: int) -> list[InvertedToken]:
    """The tokens of all embeddings. Their ids begin at `vocabulary`, in the order of `read_vectors`."""
    found: list[InvertedToken] = []
    first = vocabulary
    for embedding in embeddings:
        ids = tuple(range(first, first + embedding.vectors))
        of_tokens = [ids] if len(embedding.tokens) == 1 else [(number,) for number in ids]
        for token, own in zip(embedding.tokens, of_tokens, strict=True):
            found.append(InvertedToken(token, own, embedding.whole_words))
        first += embedding.vectors
    return found


def read_vectors(embeddings: Sequence[EmbeddingPlan], encoder: int) -> torch.Tensor:
    """The vectors [n, D] float32 of all embeddings for the text encoder of this index.

    Raises InvalidArgument that names the field.
    """
    return torch.cat([_read(embedding, encoder) for embedding in embeddings])


def _read(embedding: EmbeddingPlan, encoder: int) -> torch.Tensor:
    name = embedding.tensors[encoder]
    try:
        file = SafetensorsFile(embedding.path, embedding.fingerprint, [name], finite=True)
        return file.read(name).float().reshape(embedding.vectors, -1)
    except (NotFiniteError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(embedding.field, str(error)) from error
