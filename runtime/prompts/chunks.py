"""Divides a prompt's tokens into chunks: a chunk is what a text encoder reads in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from runtime.prompts.chunk_bound import MAX_CHUNKS
from runtime.prompts.prompt_tokenizer import Token
from runtime.prompts.weighting import PromptError

WeightedTokens = Sequence[tuple[Sequence[Token], float]]


class Chunk(NamedTuple):
    """Token ids, without those of the special tokens around them, and their weights."""

    ids: Sequence[int]
    weights: Sequence[float]


EMPTY = Chunk((), ())


def first_chunk(tokens: Sequence[Token], length: int) -> Chunk:
    """The first `length` ids, with the weight 1."""
    ids = [one for token in tokens[:length] for one in token.ids][:length]
    return Chunk(ids, [1.0] * len(ids))


def split_chunks(parts: Sequence[WeightedTokens], length: int) -> list[Chunk]:
    """Chunks of at most `length` ids. Each part of the prompt begins a chunk; the ids of a token stay together.

    An empty part is a chunk, except at the end, as in A1111. Raises PromptError for more than `MAX_CHUNKS`.
    """
    chunks: list[Chunk] = []
    for number, part in enumerate(parts, 1):
        ids: list[int] = []
        weights: list[float] = []
        for tokens, weight in part:
            for token in tokens:
                if len(ids) + len(token.ids) > length:
                    _add(chunks, ids, weights, length)
                    ids, weights = [], []
                ids += token.ids
                weights += [weight] * len(token.ids)
        if ids or number < len(parts) or not chunks:
            _add(chunks, ids, weights, length)
    return chunks


def _add(chunks: list[Chunk], ids: list[int], weights: list[float], length: int) -> None:
    if len(ids) > length:
        raise PromptError(f"a token stands for {len(ids)} vectors; the text encoder reads {length} at once")
    if len(chunks) == MAX_CHUNKS:
        raise PromptError(
            f"it has more than {MAX_CHUNKS} chunks of {length} tokens (BREAK begins a chunk): shorten the prompt"
        )
    chunks.append(Chunk(ids, weights))
