"""Texts in the form in which CLIP's tokenizer compares them. Importing this imports no torch."""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")


def normal_text(text: str) -> str:
    """Composed characters, lower case, and one space for each run of white space."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).lower()
