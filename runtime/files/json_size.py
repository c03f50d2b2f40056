"""Measures a JSON text before it is parsed.

Parsing a deep or long document takes much time and memory. Counting its values costs one pass over the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 20  # counting needs up to 18 bytes of memory for each of its bytes
_QUOTE, _BACKSLASH = ord('"'), b"\\"
# These bytes are deleted before numpy sees the text, so a base64 string costs one pass.
_UNCOUNTED = bytes(set(range(256)) - set(b'"[]{},:'))
_DEPTH_CHANGE = np.zeros(256, np.int8)
_DEPTH_CHANGE[list(b"[{")] = 1
_DEPTH_CHANGE[list(b"]}")] = -1


@dataclass(frozen=True)
class JsonSize:
    """`values`: the names and values below the root; an empty list or object counts twice.

    `depth`: levels of lists and objects.
    """

    values: int
    depth: int


def json_size(data: bytes, max_values: int, max_depth: int) -> JsonSize:
    """The size of a JSON text, without parsing it.

    Counting stops at the end of the 1 MB block in which `max_values` or `max_depth` is exceeded. The result is exact up
    to the first syntax error, where the parser stops too.
    """
    values, depth, deepest, in_string, pending = 0, 0, 0, False, b""
    for start in range(0, len(data), _BLOCK):
        text = pending + data[start : start + _BLOCK]
        # After the pairs of backslashes are removed, each backslash escapes the next byte. A backslash at the end
        # of the text escapes the first byte of the next block.
        text = text.replace(b"\\\\", b"")
        text, pending = (text[:-1], _BACKSLASH) if text.endswith(_BACKSLASH) else (text, b"")
        marks = np.frombuffer(text.replace(b'\\"', b"").translate(None, _UNCOUNTED), np.uint8)
        if not len(marks):
            continue
        is_quote = marks == _QUOTE
        quotes_before = np.cumsum(is_quote, dtype=np.uint8)  # overflow keeps its parity
        is_inside = ((quotes_before & 1) ^ in_string).astype(bool)
        in_string = bool(is_inside[-1])
        changes = _DEPTH_CHANGE[marks[~is_inside & ~is_quote]]
        values += int(np.count_nonzero(changes >= 0))
        if len(changes):
            depths = np.cumsum(changes, dtype=np.int32) + depth
            depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
        if values > max_values or deepest > max_depth:
            break
    return JsonSize(values, deepest)
