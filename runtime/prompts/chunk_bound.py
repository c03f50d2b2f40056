"""How many chunks a weighted prompt has at most, from its characters alone. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.prompts.normal_text import normal_text
from runtime.prompts.weighting import WeightedText

# The 10,000 characters that a prompt may have are about 2,100 tokens of English, which are 29 chunks. At 512 px, the
# UNet's cross-attention then still reads fewer tokens (2,464) than its self-attention (4,096).
MAX_CHUNKS = 32
_LENGTH = 75  # tokens of a chunk


def chunk_bound(parts: Sequence[Sequence[WeightedText]], inverted: Iterable[tuple[str, int]] = ()) -> int:
    """At least the number of chunks of a prompt's parts, at most `MAX_CHUNKS`.

    `inverted`: the tokens of textual inversions, and how many vectors each stands for.
    """
    text = "".join(normal_text(text) for part in parts for text, _ in part)
    # A token of CLIP's vocabulary has at least one byte, and no token has white space.
    tokens, ends = len(text.replace(" ", "").encode(errors="replace")), len(parts)
    for token, vectors in inverted:
        places = text.count(normal_text(token))
        tokens += places * vectors
        # The vectors of a token stay together, which leaves the end of a chunk unused.
        ends += places if vectors > 1 else 0
    return min(tokens // _LENGTH + ends, MAX_CHUNKS)
