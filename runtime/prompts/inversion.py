"""The tokens of textual inversions, and their places in a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

# The one word of the splitter's vocabulary, for all text between tokens. It is longer than a token can be.
_TEXT = "text" * 100


class InvertedToken(NamedTuple):
    """A token that stands for trained vectors. `ids`: of the vectors, from the vocabulary's size on.

    With `whole_words` it is no part of a longer word.
    """

    text: str
    ids: tuple[int, ...]
    whole_words: bool = False


class InversionSplitter:
    """Finds tokens in a text as transformers finds tokens that were added to `tokenizer`.

    The library compares normalized texts, and takes the longest of several tokens at a place. A copy of the tokenizer
    would do this too, but takes 0.1 s to make.
    """

    def __init__(self, tokenizer: CLIPTokenizer, tokens: Sequence[InvertedToken]) -> None:
        self._splitter = Tokenizer(WordLevel({_TEXT: 0}, unk_token=_TEXT))
        self._splitter.normalizer = tokenizer.backend_tokenizer.normalizer
        own = tokenizer.added_tokens_decoder.values()  # they come first where both are at a place
        self._splitter.add_special_tokens([token for token in own if token.special])
        self._splitter.add_tokens([token for token in own if not token.special])
        self._splitter.add_tokens([AddedToken(token.text, single_word=token.whole_words) for token in tokens])
        self._by_id = {self._splitter.token_to_id(token.text): token for token in tokens}

    def places(self, text: str) -> Iterator[tuple[int, int, InvertedToken]]:
        """Begin and end of each token in the text, in their order."""
        encoding = self._splitter.encode(text, add_special_tokens=False)
        for number, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if number in self._by_id:
                yield begin, end, self._by_id[number]
