"""The end of a prompt that the text encoder does not read, because the prompt has too many tokens."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.prompts.clip_tokenizer import TokenizerError, load_tokenizer


@dataclass(frozen=True)
class CutPrompt:
    """`text` has `tokens` tokens and follows the first `limit`."""

    text: str
    tokens: int
    limit: int


def cut_prompt(files: Tokenizer, prompt: str) -> CutPrompt | None:
    """What `token_ids` cuts from the prompt; None if it cuts nothing. Raises TokenizerError."""
    try:
        tokenizer = load_tokenizer(files)
        limit = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        encoding = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        places = encoding["offset_mapping"]  # (start, end) in `prompt` of each token
    except Exception as error:  # a damaged vocabulary makes the library raise anything
        raise TokenizerError(f"its tokenizer cannot be used ({type(error).__name__})") from error
    if len(places) <= limit:
        return None
    return CutPrompt(prompt[places[limit][0] :], len(places) - limit, limit)
