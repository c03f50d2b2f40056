"""Token ids of prompts, by the tokenizer of a text encoder and the tokens of textual inversions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.clip_vocabulary import VOCABULARY_SIZE
from runtime.prompts.clip_tokenizer import SPECIAL, load_tokenizer
from runtime.prompts.inversion import InversionSplitter, InvertedToken


class TokenizerError(ValueError):
    """The tokenizer's files cannot be used; the message is fit for the client."""


class Token(NamedTuple):
    """One id of the vocabulary, or the ids of all vectors that an inverted token stands for. `begin`: in the text."""

    ids: tuple[int, ...]
    begin: int


class PromptTokenizer:
    """Tokenizes prompts for one text encoder.

    files: may be hostile. inverted: tokens of textual inversions. vocabulary: the ids that the text encoder knows are
    below it. Raises TokenizerError, and so does every method.
    """

    def __init__(
        self, files: Tokenizer, inverted: Sequence[InvertedToken] = (), vocabulary: int = VOCABULARY_SIZE
    ) -> None:
        try:
            self._tokenizer = load_tokenizer(files)
            self._splitter = InversionSplitter(self._tokenizer, inverted) if inverted else None
        except Exception as error:  # a damaged vocabulary makes the library raise anything
            raise _unusable(error) from error
        self.vocabulary = vocabulary
        self.row(())  # checks the special tokens

    @property
    def limit(self) -> int:
        """How many ids the text encoder reads at once, besides those of the special tokens."""
        return int(self._tokenizer.model_max_length) - SPECIAL

    def tokenize(self, text: str) -> list[Token]:
        """All tokens of a text, without special tokens around them."""
        try:
            return list(self._tokens(text))
        except TokenizerError:
            raise
        except Exception as error:
            raise _unusable(error) from error

    def row(self, ids: Sequence[int]) -> list[int]:
        """At most `limit` ids between the special tokens, padded to the length that the text encoder reads."""
        first, end, padding = (
            self._known(number)
            for number in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, self._tokenizer.pad_token_id)
        )
        return [first, *ids, end, *[padding] * (self.limit - len(ids))]

    def _tokens(self, text: str) -> Iterator[Token]:
        place = 0
        for begin, end, token in self._splitter.places(text) if self._splitter else ():
            yield from self._of_vocabulary(text, place, begin)
            yield Token(token.ids, begin)
            place = end
        yield from self._of_vocabulary(text, place, len(text))

    def _of_vocabulary(self, text: str, begin: int, end: int) -> Iterator[Token]:
        piece = text[begin:end]
        if not piece.strip(" "):  # a call takes as long as for some words
            return
        encoding = self._tokenizer.backend_tokenizer.encode(piece, add_special_tokens=False)
        for number, (start, _) in zip(encoding.ids, encoding.offsets, strict=True):
            yield Token((self._known(number),), begin + start)

    def _known(self, number: int) -> int:
        if number >= self.vocabulary:
            raise TokenizerError("its text encoder lacks tokens that its tokenizer has")
        return number


def _unusable(error: Exception) -> TokenizerError:
    return TokenizerError(f"its tokenizer cannot be used ({type(error).__name__})")
