"""A prompt's token ids, by the tokenizer of a checkpoint."""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from runtime.checkpoints.checkpoint import MAX_TOKENS, Tokenizer
from runtime.checkpoints.clip_vocabulary import clip_vocabulary
from runtime.files.local_path import ascii_folder


class TokenizerError(ValueError):
    """The tokenizer's files cannot be used; the message is fit for the client."""


def token_ids(files: Tokenizer, prompt: str) -> torch.Tensor:
    """Token ids [77] int64, padded or cut to the tokenizer's length. Raises TokenizerError."""
    try:
        tokenizer = load_tokenizer(files)
        ids = tokenizer(
            prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids[0]
    except Exception as error:  # a damaged vocabulary makes the library raise anything
        raise TokenizerError(f"its tokenizer cannot be used ({type(error).__name__})") from error
    assert isinstance(ids, torch.Tensor)
    return ids


@lru_cache(maxsize=16)
def load_tokenizer(files: Tokenizer) -> CLIPTokenizer:
    """The tokenizer of these files. They may be hostile: the library raises errors of any class."""
    if files.folder is None:
        vocabulary, merges = clip_vocabulary()
        tokenizer = CLIPTokenizer(vocabulary, merges, pad_token=files.pad_token)
    else:
        with ascii_folder(files.folder) as folder:  # the library is written in Rust, which reads paths as UTF-8
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    # A tokenizer without a length says 1e30.
    tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
    if tokenizer.model_max_length < 1:
        raise ValueError("its model_max_length is below 1")
    return tokenizer
