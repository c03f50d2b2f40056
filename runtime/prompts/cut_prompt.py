"""The end of a prompt that the text encoder does not read, because the prompt has too many tokens."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.prompts.prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True)
class CutPrompt:
    """`text` has `tokens` tokens and follows the first `limit`. An inverted token counts as many as its vectors."""

    text: str
    tokens: int
    limit: int


def cut_prompt(tokenizer: PromptTokenizer, prompt: str) -> CutPrompt | None:
    """What `first_chunk` cuts from the prompt; None if it cuts nothing. Raises TokenizerError."""
    places = [token.begin for token in tokenizer.tokenize(prompt) for _ in token.ids]
    limit = tokenizer.limit
    if len(places) <= limit:
        return None
    return CutPrompt(prompt[places[limit] :], len(places) - limit, limit)
