"""The model's own tokenizer: CLIP's byte pairs, with merges for the words of the captions only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from deploy.demo_model.world import captions
from deploy.demo_model.world.colours import NAMED
from deploy.demo_model.world.scene import SIZES
from deploy.demo_model.world.things import KINDS, SUBJECT

MAX_TOKENS = 77
START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"
# Words outside of the captions that users write, and words kept for later training.
OTHER_WORDS = (
    "beautiful big bird blurry bright brown cyan dark grass grey halftone happy in light night of photo "
    "raster sepia sketch sky style the tiny two ugly under water with"
)


@dataclass(frozen=True)
class TokenIds:
    """The vocabulary, and the ids of the start and end tokens."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]

    @property
    def start(self) -> int:
        return self.vocabulary[START]

    @property
    def end(self) -> int:
        return self.vocabulary[END]


def words() -> list[str]:
    """The words that are one token each, sorted."""
    return sorted({*captions.words(), *NAMED, *filter(None, SIZES), *KINDS, SUBJECT, *OTHER_WORDS.split()})


@cache
def token_ids() -> TokenIds:
    """CLIP's order: bytes, bytes that end a word, merges, start, end."""
    symbols = sorted(ByteLevel.alphabet())
    merges = _merges()
    tokens = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, merges), START, END]
    return TokenIds({token: index for index, token in enumerate(tokens)}, merges)


@cache
def make_tokenizer() -> CLIPTokenizer:
    """The tokenizer; an unknown word is split into prefixes of known words and letters."""
    ids = token_ids()
    return CLIPTokenizer(
        vocab=dict(ids.vocabulary), merges=list(ids.merges), pad_token=END, model_max_length=MAX_TOKENS
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer in the published format, with `vocab.json` and `merges.txt`."""
    ids = token_ids()
    make_tokenizer().save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(ids.vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, ids.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _merges() -> list[tuple[str, str]]:
    """Merges that make each word one token, added word by word to the earlier ones."""
    merges: dict[tuple[str, str], int] = {}
    for word in words():
        first, *rest = _pieces([*word[:-1], word[-1] + WORD_END], merges)
        for piece in rest:
            merges[first, piece] = len(merges)
            first += piece
    return list(merges)


def _pieces(pieces: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Apply byte-pair encoding to `pieces`: repeatedly the earliest applicable merge, at its first position."""
    while True:
        ranks = [merges.get(pair, len(merges)) for pair in pairwise(pieces)]
        if not ranks or min(ranks) == len(merges):
            return pieces
        at = ranks.index(min(ranks))
        pieces = [*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]]
