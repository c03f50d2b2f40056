"""The known name that an unknown one resembles."""

import difflib
from collections.abc import Iterable

MAX_LENGTH = 60

# Other interfaces' words for the same samplers.
_SYNONYMS = (
    ("dpmsolvermultistep", "dpm++2m"),
    ("dpmsolver++", "dpm++"),
    ("dpmpp", "dpm++"),
    ("ancestral", "a"),
    ("discrete", ""),
    ("scheduler", ""),
)


def nearest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """The known name that is most like `name`, whatever their case and punctuation.

    None if no similarity is at least `cutoff` (0 to 1), or if the name is longer than `MAX_LENGTH`.
    """
    if len(name) > MAX_LENGTH:
        return None
    by_letters = {_letters(one): one for one in known}
    found = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=cutoff)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    text = "".join(letter for letter in name.lower() if letter.isalnum() or letter == "+")
    for other, ours in _SYNONYMS:
        text = text.replace(other, ours)
    return text or name
