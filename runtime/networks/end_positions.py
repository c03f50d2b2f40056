"""Where CLIP's text encoders take their pooled output. Importing this imports no library of networks."""

from __future__ import annotations

import torch

_WRONG_END = 2  # the eos_token_id of many published configurations, which is not that of their tokenizer


def end_positions(ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """The position [rows] int64 of the first end token in each row of token ids [rows, T], as in transformers.

    With the wrong `eos_token_id` it is the position of the highest id.
    """
    return (ids if eos_token_id == _WRONG_END else (ids == eos_token_id).int()).argmax(dim=-1)
