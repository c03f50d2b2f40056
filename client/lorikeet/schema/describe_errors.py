"""A validation error as one line of text, for Triton's INVALID_ARG."""

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lorikeet.protocol.shorten import shorten
from lorikeet.schema.nearest import nearest

MAX_ERRORS = 8
MAX_VALUE = 60
MAX_LOCATION = 200

_NEAR = 0.6  # similarity of a value that is likely meant
_NAME = re.compile("'([^']*)'")


def describe_errors(error: ValidationError) -> str:
    """`field: message; field: message`, e.g. `loras[1].scale: Input should be a finite number (got nan)`.

    A value is quoted only if it is a scalar of at most `MAX_VALUE` characters. At most `MAX_ERRORS` errors are listed.
    """
    details = error.errors(include_url=False)
    lines = [_line(item) for item in details[:MAX_ERRORS]]
    if len(details) > MAX_ERRORS:
        lines.append(f"and {len(details) - MAX_ERRORS} more")
    return "; ".join(lines)


def _line(item: ErrorDetails) -> str:
    text = _message(item).removeprefix("Value error, ") + _quoted(item["input"]) + _suggestion(item)
    where = _dotted(item["loc"])
    return f"{where}: {text}" if where else text


def _suggestion(item: ErrorDetails) -> str:
    """The name that a value resembles, where only certain names are valid."""
    if item["type"] not in ("enum", "literal_error") or not isinstance(item["input"], str):
        return ""
    near = nearest(item["input"], _NAME.findall(item["ctx"]["expected"]), _NEAR)
    return f": did you mean {near!r}?" if near else ""


def _message(item: ErrorDetails) -> str:
    if item["type"] == "too_long":
        return "at most {max_length}, not {actual_length}".format_map(item["ctx"])
    return item["msg"]


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith("<"):  # "<tag>" names the branch of a union, not a field
            text += f".{part}" if text else part
    return shorten(text, MAX_LOCATION)


def _quoted(value: object) -> str:
    is_short = (
        (isinstance(value, str) and len(value) <= MAX_VALUE)
        or (isinstance(value, int) and abs(value) < 10**MAX_VALUE)
        or isinstance(value, float)
    )
    text = repr(value) if is_short else ""
    return f" (got {text})" if 0 < len(text) <= MAX_VALUE else ""
