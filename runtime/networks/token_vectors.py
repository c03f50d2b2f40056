"""Token embeddings of which some are vectors of the row itself: those of textual inversions."""

from __future__ import annotations

from collections.abc import Callable

import torch


def embed(
    lookup: Callable[[torch.Tensor], torch.Tensor], vocabulary: int, ids: torch.Tensor, vectors: torch.Tensor | None
) -> torch.Tensor:
    """The embeddings [rows, T, D] of token ids [rows, T] int64.

    `lookup` has those of the ids below `vocabulary`. The id `vocabulary` + i is entry i of the row's `vectors`
    [rows, n, D].
    """
    if vectors is None:
        return lookup(ids)
    is_own = ids >= vocabulary
    places = (ids - vocabulary).clamp(min=0)[..., None].expand(*ids.shape, vectors.shape[-1])
    return torch.where(is_own[..., None], vectors.gather(1, places), lookup(ids.masked_fill(is_own, 0)))
