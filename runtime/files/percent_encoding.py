"""Decodes percent-encoded bytes in blocks: memory and time stay small when every byte is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

_PERCENT = ord("%")
_NOT_HEX = 255
_HEX = np.full(256, _NOT_HEX, np.uint8)
for _digit in "0123456789abcdefABCDEF":
    _HEX[ord(_digit)] = int(_digit, 16)


def percent_decoded(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks with each %XX replaced by its byte. A "%" without two hexadecimal digits stays, as in browsers."""
    rest = b""
    for block in blocks:
        data = rest + block
        cut = data.find(b"%", max(len(data) - 2, 0))  # an escape may end in the next block
        data, rest = (data, b"") if cut < 0 else (data[:cut], data[cut:])
        yield _decoded(data) if b"%" in data else data
    yield rest


def _decoded(data: bytes) -> bytes:
    codes = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(codes[:-2] == _PERCENT)
    high, low = _HEX[codes[places + 1]], _HEX[codes[places + 2]]
    valid = (high != _NOT_HEX) & (low != _NOT_HEX)
    places = places[valid]
    decoded = codes.copy()
    decoded[places] = high[valid] << 4 | low[valid]
    keep = np.ones(len(codes), np.bool_)
    keep[places + 1] = keep[places + 2] = False
    return decoded[keep].tobytes()
