"""The vocabulary of CLIP, which single-file checkpoints do not contain. All published checkpoints use it.

The package `openai-clip` contains its merges; the code of the package is not imported.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.metadata import distribution

_PACKAGE, _FILE = "openai-clip", "clip/bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49408
# The file has more merges than CLIP uses. The tokens are two for each byte, one for each merge, and two special ones.
_MERGES = VOCABULARY_SIZE - 2 * 256 - 2
_WORD_END = "</w>"
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token -> id (`VOCABULARY_SIZE` of them), and the merges in their order."""
    packed = distribution(_PACKAGE).locate_file(_FILE)
    with gzip.open(str(packed), "rt", encoding="utf-8") as file:
        next(file)  # a version line
        lines = [next(file).split() for _ in range(_MERGES)]
    merges = [(left, right) for left, right in lines]
    symbols = _byte_symbols()
    words = [left + right for left, right in merges]
    tokens = [*symbols, *(symbol + _WORD_END for symbol in symbols), *words, *_SPECIAL]
    return {token: number for number, token in enumerate(tokens)}, merges


def _byte_symbols() -> list[str]:
    """A printable character for each byte. Printable bytes come first, as themselves; the others are U+0100 and up."""
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    printable = [code for first, last in ranges for code in range(ord(first), ord(last) + 1)]
    return [chr(code) for code in (*printable, *range(256, 512 - len(printable)))]
