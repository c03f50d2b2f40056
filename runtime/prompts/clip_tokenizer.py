"""The tokenizer of a checkpoint."""

from __future__ import annotations

from functools import lru_cache

from transformers.models.clip.tokenization_clip import CLIPTokenizer

from runtime.checkpoints.checkpoint import MAX_TOKENS, Tokenizer
from runtime.checkpoints.clip_vocabulary import clip_vocabulary
from runtime.files.local_path import ascii_folder

SPECIAL = 2  # tokens around a prompt's own: the first and the end token


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
    length = tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
    if not isinstance(length, int) or length <= SPECIAL:
        raise ValueError(f"its model_max_length is not an integer above {SPECIAL}")
    # As a tokenizer.json may set them; prompts are cut and padded elsewhere.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if None in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        raise ValueError("it lacks a first, an end or a padding token")
    return tokenizer
