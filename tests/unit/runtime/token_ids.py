"""Token ids of whole prompts, as the text encoder reads them without weighting."""

from __future__ import annotations

import torch

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.prompts.chunks import first_chunk
from runtime.prompts.prompt_tokenizer import PromptTokenizer


def token_ids(files: Tokenizer, prompt: str) -> torch.Tensor:
    """[77] int64. Raises TokenizerError."""
    tokenizer = PromptTokenizer(files)
    return torch.tensor(tokenizer.row(first_chunk(tokenizer.tokenize(prompt), tokenizer.limit).ids))
