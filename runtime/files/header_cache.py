"""The parsed headers of `.safetensors` files, because parsing one of 16,384 tensors takes up to half a second."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple

from runtime.files.safetensors_header import MAX_HEADER, Header, HeaderText, parse_header


class _Key(NamedTuple):
    digest: bytes
    nbytes: int
    file_bytes: int


class HeaderCache:
    """At most `max_headers` headers, whose texts have at most `max_bytes` together. Any thread may use it.

    A header follows from its text and the size of its file alone. So an entry is never stale, and stays valid when the
    file is renamed: the store renames a file after its check. The least recently used entry is evicted first.
    """

    def __init__(self, max_headers: int = 64, max_bytes: int = MAX_HEADER) -> None:
        self._max_headers, self._max_bytes = max_headers, max_bytes
        self._headers: OrderedDict[_Key, Header] = OrderedDict()
        self._lock = threading.Lock()

    def parse(self, text: HeaderText) -> Header:
        """The header of a text, parsed unless it is known. Raises ValueError, as `parse_header` does."""
        key = _Key(hashlib.sha256(text.json).digest(), len(text.json), text.file_bytes)
        with self._lock:
            if key in self._headers:
                self._headers.move_to_end(key)
                return self._headers[key]
        header = parse_header(text)
        with self._lock:
            self._headers[key] = header
            while self._is_over_a_bound():
                self._headers.popitem(last=False)
        return header

    def _is_over_a_bound(self) -> bool:
        return len(self._headers) > self._max_headers or sum(key.nbytes for key in self._headers) > self._max_bytes
