"""Texts in the form in which CLIP's tokenizer compares them. Importing this imports no torch."""

from __future__ import annotations

import re
import unicodedata

# Python's white space without the separators U+001C to U+001F, of which the tokenizer makes tokens.
_SPACES = re.compile(r"[^\S\x1c-\x1f]+")


def normal_text(text: str) -> str:
    """Composed characters, each in lower case, and one space for each run of white space."""
    # Character by character, as the tokenizer does: `str.lower` makes another letter of a sigma at the end of a word.
    return "".join(map(str.lower, _SPACES.sub(" ", unicodedata.normalize("NFC", text))))
