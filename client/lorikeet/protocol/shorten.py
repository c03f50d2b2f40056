"""What an error message repeats of a request or a file: one line, and bounded. A name may be megabytes long."""

from __future__ import annotations

from collections.abc import Iterable

CUT = "..."


def shorten(text: str, most: int = 200) -> str:
    """`text` with at most `most` characters (3 or more), the last three of a longer one "...".

    Characters that cannot be printed are escaped as in Python: a line break is two characters, `\\n`.
    """
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: most + 1])
    return line if len(line) <= most else line[: most - len(CUT)] + CUT


def listed(names: Iterable[str], most: int = 8, longest: int = 100) -> str:
    """The first `most` names, each shortened to `longest` characters: "a, b and 3 more"."""
    items = list(names)
    text = ", ".join(shorten(name, longest) for name in items[:most])
    left_out = len(items) - most
    return f"{text} and {left_out} more" if left_out > 0 else text
