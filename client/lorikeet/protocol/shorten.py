"""Bounds on what an error message repeats of a request or a file: one name may be megabytes long."""

from __future__ import annotations

from collections.abc import Iterable

CUT = "..."


def shorten(text: str, most: int = 200) -> str:
    """`text` if it has at most `most` characters (3 or more), else its beginning and "..." with `most` in total."""
    return text if len(text) <= most else text[: most - len(CUT)] + CUT


def listed(names: Iterable[str], most: int = 8, longest: int = 100) -> str:
    """The first `most` names, each shortened to `longest` characters: "a, b and 3 more"."""
    items = list(names)
    text = ", ".join(shorten(name, longest) for name in items[:most])
    left_out = len(items) - most
    return f"{text} and {left_out} more" if left_out > 0 else text
