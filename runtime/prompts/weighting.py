r"""Weights in a prompt, in A1111's grammar.

`(a)` has the weight 1.1, `[a]` 1 / 1.1, `(a:1.3)` 1.3. Nested weights multiply. A backslash makes the next character
plain text. The word BREAK begins a new chunk. Importing this imports no torch.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lorikeet.protocol.shorten import CUT, shorten

MAX_WEIGHT = 100.0
_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_CLOSING = {"(": ")", "[": "]"}
_AROUND = 20  # characters of an excerpt before and after a place
_PIECE = re.compile(
    r"\\(?P<escaped>.?)"
    r"|:\s*(?P<number>[+-]?[0-9.,]+)\s*\)"
    r"|(?P<opening>[(\[])"
    r"|(?P<closing>[)\]])"
    r"|\b(?P<stop>BREAK)\b"
    r"|(?P<text>[^\\()\[\]:B]+|.)",
    re.DOTALL,
)


class PromptError(ValueError):
    """The prompt cannot be used as it is written; the message is fit for the client."""


class WeightedText(NamedTuple):
    """A part of a prompt, without brackets and backslashes, and its weight."""

    text: str
    weight: float


def parse_weights(prompt: str) -> list[list[WeightedText]]:
    """The parts of the prompt that BREAK divides. Neighbours within a part have different weights.

    Raises PromptError, which shows the place of a bracket without its counterpart or of a bad weight.
    """
    factors = _factors(prompt)
    parts: list[list[WeightedText]] = [[]]
    weights = [1.0]
    for piece in _PIECE.finditer(prompt):
        kind = piece.lastgroup
        if kind == "opening":
            weights.append(_checked(weights[-1] * factors[piece.start()], prompt, piece.start()))
        elif kind in ("closing", "number"):
            weights.pop()
        elif kind == "stop":
            parts.append([])
        else:
            _append(parts[-1], piece["text"] or piece["escaped"], weights[-1])
    return parts


def _factors(prompt: str) -> dict[int, float]:
    """The place of each opening bracket -> the factor of its text's weight."""
    factors: dict[int, float] = {}
    places: list[int] = []  # of the brackets that are open
    for piece in _PIECE.finditer(prompt):
        kind = piece.lastgroup
        if kind == "opening":
            places.append(piece.start())
        elif kind in ("closing", "number"):
            end = piece.end() - 1
            if not places or _CLOSING[prompt[places[-1]]] != prompt[end]:
                raise _unbalanced(prompt, end)
            place = places.pop()
            factors[place] = _number(prompt, piece) if kind == "number" else _FACTORS[prompt[place]]
    if places:
        raise _unbalanced(prompt, places[-1])
    return factors


def _number(prompt: str, piece: re.Match[str]) -> float:
    try:
        return float(piece["number"])
    except ValueError as error:
        number, where = shorten(piece["number"], _AROUND), _where(prompt, piece.start("number"))
        raise PromptError(f"the weight {number!r} {where} is not a number: expected one such as 1.3") from error


def _checked(weight: float, prompt: str, place: int) -> float:
    if abs(weight) > MAX_WEIGHT:
        raise PromptError(
            f"the weight of the bracket {_where(prompt, place)} is {weight:.3g}: expected at most {MAX_WEIGHT:g}, "
            "with the weights around it"
        )
    return weight


def _append(part: list[WeightedText], text: str, weight: float) -> None:
    """Add a text to a part. Of one word, its tokens must be made together."""
    if part and part[-1].weight == weight:
        part[-1] = WeightedText(part[-1].text + text, weight)
    elif text:
        part.append(WeightedText(text, weight))


def _unbalanced(prompt: str, place: int) -> PromptError:
    bracket = prompt[place]
    return PromptError(
        f"{bracket!r} {_where(prompt, place)} has no counterpart: add it, or write '\\{bracket}' for plain text"
    )


def _where(prompt: str, place: int) -> str:
    """For example "at character 12 (in 'a large (red fish')"."""
    begin, end = max(place - _AROUND, 0), place + _AROUND
    excerpt = f"{CUT if begin else ''}{prompt[begin:end]}{CUT if end < len(prompt) else ''}"
    return f"at character {place + 1} (in {shorten(excerpt)!r})"
